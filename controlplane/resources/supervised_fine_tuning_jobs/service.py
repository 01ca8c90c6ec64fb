"""Fine-tuning jobs as the newer collection asks for them: its words, and what only it can ask for."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from controlplane.config import Settings
from controlplane.errors import invalid
from controlplane.names import check_id
from controlplane.prices import Prices
from controlplane.resources.fine_tuning_jobs.defaults import Defaults, defaults_for
from controlplane.resources.fine_tuning_jobs.tables import SUPERVISED_FINE_TUNING_JOBS, FineTuningJobRow
from controlplane.resources.fine_tuning_jobs.wanted import Wanted
from controlplane.resources.supervised_fine_tuning_jobs.schemas import SupervisedFineTuningJob

DEFAULT_LORA_RANK = 8
DEFAULT_CONTEXT_LENGTH = 8192
COMPLETION_TEMPLATES = {"input_template": "{prompt}", "output_template": "{completion}"}

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
}
WORDS = {
    "model_id": "outputModel",
    "evaluation": "evaluationDataset or evalAutoCarveout",
    "cutoff_length": "maxContextLength",
    "batch_tokens": "batchSize",
    "batch_size": "batchSizeSamples",
    "input_template": "dataset",
    "output_template": "dataset",
}


def wanted_job(job_id: str, body: SupervisedFineTuningJob) -> Wanted:
    """Rows of messages train a conversation; rows with `prompt` and `completion`, a completion."""
    given = body.given()
    refuse_contradictions(given)
    job_id = check_id(job_id or str(uuid.uuid4()), "supervisedFineTuningJobId")
    settings = {setting: given[field] for field, setting in SETTING_OF_FIELD.items() if field in given}
    settings["model_id"] = settings.get("model_id") or job_id
    templates = {"conversation": {"jinja_template": given.get("jinja_template", "")}}
    if not given.get("jinja_template"):
        templates["text_completion"] = COMPLETION_TEMPLATES
    return Wanted(
        collection=SUPERVISED_FINE_TUNING_JOBS,
        job_id=job_id,
        given=settings,
        templates=templates,
        defaults=supervised_defaults,
        words=WORDS,
    )


def refuse_contradictions(given: dict[str, Any]) -> None:
    if given.get("lora_rank") == 0:
        raise invalid(
            "loraRank 0 asks for full-parameter tuning, which is not supported: jobs train LoRA adapters; "
            f"leave loraRank out for {DEFAULT_LORA_RANK}",
            "loraRank",
        )
    if given.get("nodes", 0) > 1:
        raise invalid("nodes is not supported above 1: a job trains on one machine", "nodes")
    if given.get("batch_size") and given.get("batch_size_samples"):
        raise invalid(
            "a batch is measured by batchSize, in tokens, or by batchSizeSamples, in rows; give one of them",
            "batchSize",
        )
    if given.get("eval_auto_carveout") and given.get("evaluation_dataset"):
        raise invalid("evalAutoCarveout has no effect: evaluationDataset is evaluated on", "evalAutoCarveout")


def supervised_defaults(model_id: str, parameter_count: int, context_length: int) -> Defaults:
    """The base model's learning rate and batch, and for the rest one default for all models."""
    own = defaults_for(model_id, parameter_count, context_length)
    longest = min(DEFAULT_CONTEXT_LENGTH, context_length or DEFAULT_CONTEXT_LENGTH)
    return replace(own, lora_rank=DEFAULT_LORA_RANK, epochs=1, cutoff_length=longest)


def estimate_cost(settings: Settings, job: FineTuningJobRow) -> int:
    """What the job is likely to cost, in nano-dollars: its dataset's estimated tokens, in each epoch."""
    tokens = int(job.settings["dataset_tokens"] * job.settings["epochs"])
    return (settings.prices or Prices()).of_training(job.settings["tuned_model"], tokens)
