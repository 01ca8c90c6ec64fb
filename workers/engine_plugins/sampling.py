"""Sampling options that the engine lacks, as a plug-in of it: `typical_p`, `mirostat_target`, `mirostat_lr`.

The engine gets them with a request, in `vllm_xargs`. They come after its temperature and leave greedy
requests alone, as the engine's own filters do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from workers.engine_plugins.surprise import DEFAULT_RATE, Mirostat, keep_below, keep_typical, surprise_bits


@dataclass(eq=False)
class Followed:
    """An answer that Mirostat holds to its target."""

    mirostat: Mirostat
    tokens: Sequence[int]
    """The answer so far: the engine's own list, which grows."""
    bits: Any = None
    """The surprise of each token that could have come last."""

    def catch_up(self) -> None:
        if self.bits is not None and self.tokens and self.tokens[-1] >= 0:
            self.mirostat.see(float(self.bits[self.tokens[-1]]))
        self.bits = None


class SurpriseSampling(LogitsProcessor):
    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        self._typical: dict[int, float] = {}
        """The mass to keep, by the request's place in the batch."""
        self._followed: dict[int, Followed] = {}

    def is_argmax_invariant(self) -> bool:
        """Greedy requests never get here; see above."""
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._typical, batch_update, _new_typical)
        process_dict_updates(self._followed, batch_update, _new_followed)

    def apply(self, logits: Any) -> Any:
        if self._typical:
            rows = list(self._typical)
            mass = torch.tensor([self._typical[row] for row in rows], device=logits.device)
            logits[rows] = keep_typical(logits[rows], mass)
        if self._followed:
            self._hold(logits)
        return logits

    def _hold(self, logits: Any) -> None:
        rows = list(self._followed)
        for followed in self._followed.values():
            followed.catch_up()
        bits = surprise_bits(logits[rows])
        most = torch.tensor([each.mirostat.most for each in self._followed.values()], device=logits.device)
        logits[rows] = keep_below(logits[rows], most)
        for followed, own in zip(self._followed.values(), bits, strict=True):
            followed.bits = own


def _new_typical(params: Any, prompt: object, tokens: object) -> float | None:
    return _asked(params).get("typical_p")


def _new_followed(params: Any, prompt: object, tokens: list[int]) -> Followed | None:
    asked = _asked(params)
    if "mirostat_target" not in asked:
        return None
    return Followed(Mirostat(asked["mirostat_target"], asked.get("mirostat_lr", DEFAULT_RATE)), tokens)


def _asked(params: Any) -> Mapping[str, float]:
    return params.extra_args or {}
