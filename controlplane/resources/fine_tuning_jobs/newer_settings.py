"""The settings of a job as the newer collections name them."""

from __future__ import annotations

import uuid
from typing import Any

from controlplane.errors import invalid
from controlplane.names import check_id
from controlplane.resources.fine_tuning_jobs.defaults import Defaults, defaults_for
from controlplane.resources.fine_tuning_jobs.newer import METHOD_OF_PRECISION, PRECISIONS

DEFAULT_LORA_RANK = 8
DEFAULT_CONTEXT_LENGTH = 8192

SETTING_OF_FIELD = {
    "display_name": "display_name",
    "dataset": "dataset",
    "evaluation_dataset": "evaluation_dataset",
    "base_model": "base_model",
    "warm_start_from": "warm_start_from",
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "lora_rank": "lora_rank",
    "early_stop": "early_stop",
    "output_model": "model_id",
    "eval_auto_carveout": "evaluation",
    "max_context_length": "cutoff_length",
    "batch_size": "batch_tokens",
    "batch_size_samples": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "learning_rate_warmup_steps": "warmup_steps",
    "optimizer_weight_decay": "weight_decay",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "lora_target_modules",
    "accelerator_count": "accelerator_count",
    "priority": "priority",
    "sampler_checkpoint_save_interval_steps": "sampler_interval_steps",
}
WORDS = {
    "model_id": "outputModel",
    "evaluation": "evaluationDataset or evalAutoCarveout",
    "cutoff_length": "maxContextLength",
    "batch_tokens": "batchSize",
    "batch_size": "batchSizeSamples",
    "accelerator_count": "acceleratorCount",
}


def settings_of(given: dict[str, Any], job_id: str) -> dict[str, Any]:
    """What was given, as `resolve_settings` knows it; the model that is made is named after the job."""
    refuse_contradictions(given)
    settings = {setting: given[field] for field, setting in SETTING_OF_FIELD.items() if field in given}
    settings["model_id"] = settings.get("model_id") or job_id
    settings["tuning_method"] = METHOD_OF_PRECISION.get(given.get("base_model_weight_precision", ""), "")
    return settings


def checked_id(job_id: str, field: str) -> str:
    """The job's id, or a random one."""
    return check_id(job_id or str(uuid.uuid4()), field)


def refuse_contradictions(given: dict[str, Any]) -> None:
    if given.get("lora_rank") == 0:
        raise invalid(
            "loraRank 0 asks for full-parameter tuning, which is not supported: jobs train LoRA adapters; "
            f"leave loraRank out for {DEFAULT_LORA_RANK}",
            "loraRank",
        )
    if given.get("batch_size") and given.get("batch_size_samples"):
        raise invalid(
            "a batch is measured by batchSize, in tokens, or by batchSizeSamples, in rows; give one of them",
            "batchSize",
        )
    if given.get("eval_auto_carveout") and given.get("evaluation_dataset"):
        raise invalid("evalAutoCarveout has no effect: evaluationDataset is evaluated on", "evalAutoCarveout")
    refuse_precision(given)


def refuse_precision(given: dict[str, Any]) -> None:
    precision = given.get("base_model_weight_precision", PRECISIONS[0])
    if precision not in (PRECISIONS[0], *METHOD_OF_PRECISION):
        raise invalid(
            f"baseModelWeightPrecision {precision} is not supported: "
            f"a base is trained on in {' or '.join(METHOD_OF_PRECISION)}",
            "baseModelWeightPrecision",
        )


def newer_defaults(model_id: str, parameter_count: int, context_length: int) -> Defaults:
    """The base model's learning rate and batch, and for the rest one default for all models."""
    own = defaults_for(model_id, parameter_count, context_length)
    longest = min(DEFAULT_CONTEXT_LENGTH, context_length or DEFAULT_CONTEXT_LENGTH)
    own_kind = {"lora_rank": DEFAULT_LORA_RANK, "epochs": 1, "cutoff_length": longest}
    return own.model_copy(update=own_kind)
