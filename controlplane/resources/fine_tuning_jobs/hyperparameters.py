"""The settings that a job runs with: what was given, else the base model's defaults, all of it checked."""

from __future__ import annotations

import math
from typing import Any, get_args

from controlplane.checks.lora_targets import tunable_modules
from controlplane.errors import invalid
from controlplane.resources.fine_tuning_jobs.defaults import Defaults, Method
from controlplane.resources.fine_tuning_jobs.inputs import Inputs
from controlplane.resources.fine_tuning_jobs.wanted import Wanted

MAX_EXAMPLES = 3_000_000
"""Of examples × epochs, as the original has it."""
MAX_BATCH_SIZE = 4096
DEFAULT_SEED = 42
SHORTEST_CUTOFF = 2
"""Tokens: one to read and one to learn."""
DEFAULT_EVALUATION_SPLIT = 0.15
SCHEDULERS = (
    "linear",
    "cosine",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)
SAME_AS = {"polynomial": "linear", "cosine_with_restarts": "cosine"}
"""Without a number that no job has a field for, the power or the restarts, they are these."""


def resolve_settings(wanted: Wanted, inputs: Inputs, max_lora_rank: int) -> dict[str, Any]:
    """Every setting of the job, whichever collection it is made through."""
    given, base = wanted.given, inputs.base
    own = wanted.defaults(base.id, base.facts.get("parameter_count", 0), base.context_length)
    rank = given.get("lora_rank") or (inputs.warm_start.facts["r"] if inputs.warm_start else own.lora_rank)
    chosen = {
        "base_model": base.name if inputs.warm_start is None else "",
        "warm_start_from": inputs.warm_start.name if inputs.warm_start else "",
        "dataset": inputs.dataset.name,
        "evaluation_dataset": inputs.evaluation_dataset.name if inputs.evaluation_dataset else "",
        "epochs": given.get("epochs") or own.epochs,
        "learning_rate": given.get("learning_rate") or own.learning_rate,
        "lr_scheduler_type": given.get("lr_scheduler_type") or "cosine",
        "warmup_steps": given.get("warmup_steps", 0),
        "weight_decay": given.get("weight_decay", 0.0),
        "lora_rank": rank,
        "lora_alpha": given.get("lora_alpha") or own_alpha(inputs) or 2 * rank,
        "lora_target_modules": given.get("lora_target_modules", []),
        "lora_dropout": given.get("lora_dropout", 0.0),
        "tuning_method": chosen_method(given, own),
        "seed": given.get("seed") or DEFAULT_SEED,
        "sampler_interval_steps": given.get("sampler_interval_steps", 0),
        "accelerator_count": given.get("accelerator_count") or 1,
        "cutoff_length": given.get("cutoff_length") or own.cutoff_length,
        "early_stop": given.get("early_stop", False),
        "evaluation": given.get("evaluation", False) or bool(inputs.evaluation_dataset),
        "evaluation_split": given.get("evaluation_split") or DEFAULT_EVALUATION_SPLIT,
        **batches(given, own.batch_size),
    }
    if inputs.kind == "preference":
        chosen["preference"] = given.get("preference") or {"method": "dpo"}
    check_settings(wanted, chosen, inputs, max_lora_rank)
    check_batches(wanted, chosen, inputs.kind)
    return chosen


def own_alpha(inputs: Inputs) -> int:
    """That of the addon that the job goes on from."""
    return int(inputs.warm_start.facts.get("lora_alpha") or 0) if inputs.warm_start else 0


def chosen_method(given: dict[str, Any], own: Defaults) -> str:
    asked = str(given.get("tuning_method", ""))
    return asked if asked in get_args(Method) else own.method


def batches(given: dict[str, Any], default: int) -> dict[str, int]:
    """What one step of the optimizer takes: so many rows or, when tokens are counted, so many packs of rows.

    `accumulation` batches make a step; a pack is a batch of its own.
    """
    tokens, accumulation = given.get("batch_tokens", 0), given.get("accumulation") or 1
    rows = 0 if tokens else given.get("batch_size") or default
    return {
        "batch_tokens": tokens,
        "batch_rows": rows,
        "accumulation": accumulation,
        "batch_size": (rows or 1) * accumulation,
        "micro_batch_size": 1 if tokens else given.get("micro_batch_size", 0),
    }


def check_settings(wanted: Wanted, chosen: dict[str, Any], inputs: Inputs, max_lora_rank: int) -> None:
    rank, cutoff, limit = chosen["lora_rank"], chosen["cutoff_length"], inputs.base.context_length
    check_schedule(wanted, chosen)
    if rank > max_lora_rank:
        raise invalid(f"loraRank {rank} is more than the engines' {max_lora_rank}", "loraRank")
    if inputs.warm_start and rank != inputs.warm_start.facts["r"]:
        raise invalid(f"loraRank must stay {inputs.warm_start.facts['r']}, the addon's own", "loraRank")
    check_targets(wanted, chosen, str(inputs.base.facts.get("architecture", "")))
    for name in ("lora_target_modules", "lora_alpha"):
        if inputs.warm_start and wanted.given.get(name):
            own = wanted.word(name)
            raise invalid(f"{own} is the addon's own, and cannot be chosen", own)
    field = wanted.word("cutoff_length")
    if cutoff < SHORTEST_CUTOFF:
        raise invalid(f"{field} must be at least {SHORTEST_CUTOFF}", field)
    if limit and cutoff > limit:
        raise invalid(f"{field} is more than the model's context of {limit}", field)
    if chosen["early_stop"] and not chosen["evaluation"]:
        ways = wanted.word("evaluation")
        raise invalid(f"earlyStop needs {ways}: it stops when the evaluation loss rises", "earlyStop")
    seen = math.ceil(inputs.dataset.example_count * chosen["epochs"])
    if seen > MAX_EXAMPLES:
        raise invalid(f"examples × epochs is {seen:,}, more than {MAX_EXAMPLES:,}", "epochs")


def check_schedule(wanted: Wanted, chosen: dict[str, Any]) -> None:
    schedule = chosen["lr_scheduler_type"]
    if schedule in SAME_AS:
        raise invalid(
            f"lrSchedulerType {schedule} would be {SAME_AS[schedule]}: a job has no field for what makes it "
            f"another; take {SAME_AS[schedule]}",
            "lrSchedulerType",
        )
    if schedule not in SCHEDULERS:
        raise invalid(f"lrSchedulerType must be one of {', '.join(SCHEDULERS)}", "lrSchedulerType")
    if schedule == "constant" and chosen["warmup_steps"]:
        field = wanted.word("warmup_steps")
        raise invalid(
            f"{field} has no effect with lrSchedulerType constant; take constant_with_warmup", field
        )


def check_targets(wanted: Wanted, chosen: dict[str, Any], architecture: str) -> None:
    """A module that the engine cannot serve adapted is not trained."""
    field, allowed = wanted.word("lora_target_modules"), tunable_modules(architecture)
    unknown = sorted(set(chosen["lora_target_modules"]) - set(allowed))
    if unknown:
        named = ", ".join(unknown)
        raise invalid(f"{field} {named} cannot be tuned; of {architecture} {', '.join(allowed)} can", field)


def check_batches(wanted: Wanted, chosen: dict[str, Any], kind: str) -> None:
    rows, micro, tokens = chosen["batch_size"], chosen["micro_batch_size"], chosen["batch_tokens"]
    field = wanted.word("batch_size")
    if rows > MAX_BATCH_SIZE:
        raise invalid(f"a step of {rows} batches and samples is more than {MAX_BATCH_SIZE}", field)
    if micro and rows % micro:
        raise invalid(f"{field} {rows} is not a multiple of microBatchSize {micro}", "microBatchSize")
    processes = chosen["accelerator_count"]
    if rows % processes:
        own = wanted.word("accelerator_count")
        raise invalid(f"{own} {processes} does not divide a step of {rows} batches and samples", own)
    if micro and (rows // processes) % micro:
        own = wanted.word("micro_batch_size")
        raise invalid(f"{own} {micro} does not divide the {rows // processes} of each accelerator", own)
    texts, example = (2, "pair, each answer") if kind == "preference" else (1, "example")
    if tokens and tokens < texts * chosen["cutoff_length"]:
        cutoff = wanted.word("cutoff_length")
        raise invalid(
            f"{wanted.word('batch_tokens')} {tokens} does not hold one {example} of "
            f"{cutoff} {chosen['cutoff_length']}; make one larger or the other smaller",
            wanted.word("batch_tokens"),
        )
