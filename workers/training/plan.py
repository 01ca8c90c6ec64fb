"""How a job's settings become steps, batches and logging: plain arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from workers.training.config import JobSpec

TOKENS_AT_ONCE = 16_384
"""Padded tokens of one micro batch, where the job does not say how many rows it is to have."""
LOGGED_STEPS = 1000
EARLY_STOP_EVALUATIONS = 10


@dataclass(frozen=True)
class StepPlan:
    micro_batch_size: int
    accumulation: int
    steps_per_epoch: int
    max_steps: int
    logging_steps: int
    evaluation_steps: int
    warnings: list[str]


def plan_steps(spec: JobSpec, examples: int, micro: int) -> StepPlan:
    """Steps for so many examples, `micro` of them at once in each process.

    A step takes `batch_size` rows, the last of an epoch what is left; a fraction of an epoch is rounded up to
    whole steps.
    """
    warnings = []
    if spec.micro_batch_size and micro != spec.micro_batch_size:
        warnings.append(f"micro batches are of {micro} rows, not of {spec.micro_batch_size}: {_why(spec)}")
    steps_per_epoch = math.ceil(examples / spec.batch_size)
    max_steps = max(1, math.ceil(round(spec.epochs * steps_per_epoch, 6)))
    if abs(max_steps - spec.epochs * steps_per_epoch) > 1e-6:
        warnings.append(
            f"{spec.epochs:g} epochs are {spec.epochs * steps_per_epoch:g} steps, rounded up to {max_steps}"
        )
    if spec.warmup_steps >= max_steps:
        warnings.append(
            f"the job has {max_steps} steps and warms up for {spec.warmup_steps}: "
            "the learning rate is never reached"
        )
    return StepPlan(
        micro_batch_size=micro,
        accumulation=spec.batch_size // (micro * spec.processes),
        steps_per_epoch=steps_per_epoch,
        max_steps=max_steps,
        logging_steps=math.ceil(max_steps / LOGGED_STEPS),
        evaluation_steps=math.ceil(max_steps / EARLY_STOP_EVALUATIONS)
        if spec.early_stop
        else steps_per_epoch,
        warnings=warnings,
    )


def micro_batch_size(spec: JobSpec, longest: int) -> int:
    """A divisor of a process's share of the batch, so that every step has exactly `batch_size` rows."""
    wanted = spec.micro_batch_size or max(1, TOKENS_AT_ONCE // max(1, longest))
    share = spec.batch_size // spec.processes
    return max(size for size in range(1, share + 1) if share % size == 0 and size <= wanted)


def _why(spec: JobSpec) -> str:
    share = spec.batch_size // spec.processes
    if share % spec.micro_batch_size:
        return f"that does not divide the batch size {share}" + (" of a process" * (spec.processes > 1))
    return "more do not fit into the memory"
