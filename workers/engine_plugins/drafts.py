"""Tokens that are guessed ahead, held to what a request asks for, as a plug-in of the engine.

An engine that guesses checks its guesses by the temperature, `top_k` and `top_p` of the request that each of
them is for. Where it has no Triton, as on the CPU, it leaves these unset, and fails as a whole on a `top_k`
when there was nothing to guess.

Nor has it our own sampling then: asked for that, it refuses. The gateway does so before, but it goes by what
is wanted of a deployment, whose replicas may still be older.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

OURS = frozenset({"typical_p", "mirostat_target", "mirostat_lr"})


def guess_soundly() -> None:
    """Called by the engine in each of its processes as it starts."""
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import SamplingParams
    from vllm.triton_utils import HAS_TRITON
    from vllm.v1.sample import rejection_sampler

    if hasattr(SamplingParams._validate_spec_decode, "__wrapped__"):
        return
    SamplingParams._validate_spec_decode = refusing_ours(
        SamplingParams._validate_spec_decode, VLLMValidationError
    )
    if HAS_TRITON:
        return
    rejection_sampler.expand_batch_to_tokens = of_each_guess
    rejection_sampler.apply_top_k_top_p = unless_empty(rejection_sampler.apply_top_k_top_p)


def refusing_ours(check: Callable[..., None], refusal: Callable[[str], Exception]) -> Callable[..., None]:
    """The engine's check of a request's sampling, which refuses also what only `sampling.py` can do."""

    @wraps(check)
    def check_all(params: Any, speculative: Any) -> None:
        check(params, speculative)
        if speculative is not None:
            for name in OURS & (params.extra_args or {}).keys():
                raise refusal(f"{name} does not go with guessing tokens ahead, as this engine does")

    return check_all


def of_each_guess(
    setting: torch.Tensor, ends: torch.Tensor, guesses: int, replace_from: int = 0, replace_to: int = 0
) -> torch.Tensor:
    """A setting of each request (shape: requests) as one of each guess (shape: guesses).

    `ends` counts the guesses of all requests up to each of them; `replace_from` becomes `replace_to`.
    """
    counts = ends.diff(prepend=ends.new_zeros(1))
    replaced = setting.masked_fill(setting == replace_from, replace_to)
    return replaced.repeat_interleave(counts, output_size=guesses)


def unless_empty(limit: Callable[..., Any]) -> Callable[..., Any]:
    """`limit`, which is left out where there are no rows of logits."""

    @wraps(limit)
    def limit_any(logits: Any, k: Any, p: Any) -> Any:
        return limit(logits, k, p) if len(logits) else logits

    return limit_any
