"""What an engine is started with, and whether one could be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from pydantic.alias_generators import to_camel
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.checks.architectures import GENERATE, architectures
from controlplane.errors import invalid
from controlplane.node_pools import NODE_POOLS
from controlplane.regions import ANYWHERE, Regions
from controlplane.resources.deployments.accelerators import (
    UNSPECIFIED,
    check_accelerators,
    check_pools,
    local_devices,
)
from controlplane.resources.deployments.placement import check_regions
from controlplane.resources.tables import ModelRow
from controlplane.sizing import LONG_PROMPT_FACTOR, DoesNotFit, ModelSizes

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
    @property
    def long_prompt(self) -> bool: ...
    @property
    def num_lora_device_cached(self) -> int: ...
    @property
    def draft_model(self) -> str: ...


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
    num_lora_device_cached: int = 0
    long_prompt: bool = False
    draft_model: str = ""
    """In full."""

    @classmethod
    def of(cls, source: Any) -> EngineSettings:
        """Those of a deployment's row, or of a shape, which leaves open what it has no field for."""
        return cls(**{name: getattr(source, name) for name in OF_THE_ENGINE if hasattr(source, name)})


OF_THE_ENGINE = tuple(field.name for field in fields(EngineSettings))
LEFT_OPEN = {field.name: field.default for field in fields(EngineSettings)}
OF_SHAPES = tuple(name for name in OF_THE_ENGINE if name != "long_prompt")
"""Those that shapes have fields for."""
DRAFT_TOKENS = 4
"""How many tokens are guessed at a time, where the deployment does not say."""
ADDON_SLOTS = 4
"""How many addons stay on the device at a time, where the deployment does not say."""
WAYS_TO_GUESS = ("ngram_speculation_length", "draft_model")
SPECULATION = (*WAYS_TO_GUESS, "draft_token_count")
"""The settings that say whether, and how, tokens are guessed ahead."""
LONG_PROMPT = "autoTune.longPrompt"
SENT_AS = {"long_prompt": LONG_PROMPT, "num_lora_device_cached": "maxPeftBatchSize"}
"""What deployments call those settings that have other names there."""
OTHER_FIELDS = {"auto_tune", "max_peft_batch_size"}
"""The fields of deployments that have them."""


def settings_in(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among the fields of a deployment that were sent."""
    found = {field: fields[field] for field in OF_THE_ENGINE if field in fields}
    if "auto_tune" in fields:
        found["long_prompt"] = bool(fields["auto_tune"] and fields["auto_tune"].long_prompt)
    if "max_peft_batch_size" in fields:
        found["num_lora_device_cached"] = fields["max_peft_batch_size"]
    return found


def sent_as(field: str) -> str:
    """What the request for a deployment calls a setting."""
    return SENT_AS.get(field) or to_camel(field)


def check_engine(
    session: AsyncSession, settings: Settings, base: ModelRow, regions: Regions = ANYWHERE
) -> None:
    """Refuse what no engine in these regions could be started with."""
    kind, count, pools = settings.accelerator_type, settings.accelerator_count, session.info.get(NODE_POOLS)
    check_regions(pools, regions)
    if pools is not None:
        check_pools(kind, count, pools, regions)
        check_precision(settings.precision, on_gpus=pools.has_gpus(kind, regions))
        most = max(0 if pool.on_cpu else pool.per_node for pool in pools.pools_for(kind, regions))
    else:
        devices = local_devices()
        check_accelerators(kind, count, devices)
        check_precision(settings.precision, on_gpus=bool(devices))
        most = len(devices)
    longest = base.context_length or base.facts.get("context_length") or settings.max_context_length
    if settings.max_context_length > longest:
        raise invalid(
            f"maxContextLength {settings.max_context_length} is more than the model's own {longest}",
            "maxContextLength",
        )
    if settings.enable_addons and base.facts.get("supports_lora") is False:
        raise invalid(f"the engine serves no addons on {base.name}", "enableAddons")
    check_addon_slots(settings, SENT_AS["num_lora_device_cached"])
    check_speculation(settings, base)
    if settings.long_prompt:
        check_long_prompt(settings, base, most, sized=pools is not None)


def check_addon_slots(settings: Settings, word: str) -> None:
    if settings.num_lora_device_cached and not settings.enable_addons:
        raise invalid(
            f"{word} {settings.num_lora_device_cached} needs enableAddons: "
            "it says how many addons stay on the device at a time",
            word,
        )


def check_long_prompt(settings: Settings, base: ModelRow, most: int, *, sized: bool) -> None:
    """`most` GPUs a replica can have; where they are `sized`, it depends on the model how many it gets."""
    spreads = f"{LONG_PROMPT} spreads a prompt over two GPUs or more"
    if most < LONG_PROMPT_FACTOR:
        have = "a replica can have one here" if most else "models run on the CPU here"
        raise invalid(f"{spreads}, and {have}; leave it unset", LONG_PROMPT)
    if settings.accelerator_count == 1:
        raise invalid(
            f"{spreads}, and acceleratorCount is 1; ask for more, or leave one of them unset", LONG_PROMPT
        )
    if base.task != GENERATE:
        raise invalid(
            f"{LONG_PROMPT} is for prompts that are answered, and {base.name} writes no text; "
            "acceleratorCount alone spreads it over more GPUs",
            LONG_PROMPT,
        )
    config = base.facts.get("config")
    if config and not sized:
        try:
            ModelSizes.of(0, config).check_split(settings.accelerator_count or LONG_PROMPT_FACTOR)
        except DoesNotFit as error:
            raise invalid(f"{LONG_PROMPT} cannot be had: {error}", LONG_PROMPT) from None


def check_speculation(settings: Settings, base: ModelRow) -> None:
    """What can be told without the draft model; the rest is `drafts.check_draft`."""
    ways = [to_camel(way) for way in WAYS_TO_GUESS if getattr(settings, way)]
    if len(ways) > 1:
        raise invalid(f"{ways[0]} and {ways[1]} exclude each other: one of them guesses", ways[1])
    known = architectures().get(base.facts.get("architecture", ""))
    for way in ways:
        if base.task != GENERATE:
            raise invalid(f"{base.name} writes no text, so that {way} has nothing to guess", way)
        if known and known.recurrent:
            raise invalid(
                f"{base.name} is a {known.name}, whose state cannot take back what {way} has guessed", way
            )
    if settings.draft_token_count and not ways:
        raise invalid(
            f"draftTokenCount {settings.draft_token_count} needs ngramSpeculationLength or draftModel: "
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
