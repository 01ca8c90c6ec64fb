"""What an engine is started with, and whether one could be."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.checks.architectures import GENERATE, architectures
from controlplane.errors import invalid
from controlplane.node_pools import NODE_POOLS
from controlplane.resources.deployments.accelerators import (
    UNSPECIFIED,
    check_accelerators,
    check_pools,
    local_devices,
)
from controlplane.resources.tables import ModelRow

SERVED_PRECISIONS = ("PRECISION_UNSPECIFIED", "FP16", "BF16")
SERVED_ON_GPUS = ("FP8", "FP8_MM", "FP8_KV")
"""In eight bits are the weights, which the engine quantises as it reads them, or the KV cache."""


class Settings(Protocol):
    """What `check_engine` reads: a deployment's row has it, and so has `EngineSettings`."""

    @property
    def enable_addons(self) -> bool: ...
    @property
    def accelerator_type(self) -> str: ...
    @property
    def accelerator_count(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def max_context_length(self) -> int: ...
    @property
    def ngram_speculation_length(self) -> int: ...
    @property
    def draft_token_count(self) -> int: ...


@dataclass(frozen=True)
class EngineSettings:
    """The settings that a running engine cannot take; each default leaves the choice open."""

    enable_addons: bool = False
    accelerator_type: str = UNSPECIFIED
    accelerator_count: int = 0
    precision: str = "PRECISION_UNSPECIFIED"
    max_context_length: int = 0
    ngram_speculation_length: int = 0
    draft_token_count: int = 0

    @classmethod
    def of(cls, source: Any) -> EngineSettings:
        """Those of a row or a message that has fields of these names."""
        return cls(**{name: getattr(source, name) for name in OF_THE_ENGINE})


OF_THE_ENGINE = tuple(field.name for field in fields(EngineSettings))
LEFT_OPEN = {field.name: field.default for field in fields(EngineSettings)}
DRAFT_TOKENS = 4
"""How many tokens are guessed at a time, where the deployment does not say."""
SPECULATION = ("ngram_speculation_length", "draft_token_count")
"""The settings that say whether, and how, tokens are guessed ahead."""


def check_engine(session: AsyncSession, settings: Settings, base: ModelRow) -> None:
    """Refuse what no engine here could be started with."""
    kind, count, pools = settings.accelerator_type, settings.accelerator_count, session.info.get(NODE_POOLS)
    if pools is not None:
        check_pools(kind, count, pools)
        check_precision(settings.precision, on_gpus=pools.has_gpus(kind))
    else:
        devices = local_devices()
        check_accelerators(kind, count, devices)
        check_precision(settings.precision, on_gpus=bool(devices))
    longest = base.context_length or base.facts.get("context_length") or settings.max_context_length
    if settings.max_context_length > longest:
        raise invalid(
            f"maxContextLength {settings.max_context_length} is more than the model's own {longest}",
            "maxContextLength",
        )
    if settings.enable_addons and base.facts.get("supports_lora") is False:
        raise invalid(f"the engine serves no addons on {base.name}", "enableAddons")
    check_speculation(settings, base)


def check_speculation(settings: Settings, base: ModelRow) -> None:
    if settings.ngram_speculation_length and base.task != GENERATE:
        raise invalid(
            f"{base.name} writes no text, so that ngramSpeculationLength has nothing to guess",
            "ngramSpeculationLength",
        )
    known = architectures().get(base.facts.get("architecture", ""))
    if settings.ngram_speculation_length and known and known.recurrent:
        raise invalid(
            f"{base.name} is a {known.name}, whose state cannot take back what ngramSpeculationLength "
            "has guessed",
            "ngramSpeculationLength",
        )
    if settings.draft_token_count and not settings.ngram_speculation_length:
        raise invalid(
            f"draftTokenCount {settings.draft_token_count} needs ngramSpeculationLength: "
            "it says how many tokens are guessed at a time",
            "draftTokenCount",
        )


def check_precision(precision: str, *, on_gpus: bool) -> None:
    if precision in SERVED_PRECISIONS or (on_gpus and precision in SERVED_ON_GPUS):
        return
    why = "needs a GPU, and models run on the CPU here" if precision in SERVED_ON_GPUS else "is not served"
    eight_bits: tuple[str, ...] = SERVED_ON_GPUS if on_gpus else ()
    *usable, last = "BF16", "FP16", *eight_bits
    raise invalid(f"precision {precision} {why}; use {', '.join(usable)} or {last}", "precision")
