"""What the messages of the newer job collections have in common: states, progress, settings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SecretStr
from sqlalchemy import case

from controlplane.resources.fine_tuning_jobs.costs import Money
from controlplane.resources.fine_tuning_jobs.effective import effective_settings
from controlplane.resources.fine_tuning_jobs.lineage import lineage_message
from controlplane.resources.fine_tuning_jobs.outcome import evaluation_message
from controlplane.resources.fine_tuning_jobs.states import COMPLETED, EARLY_STOPPED, SHOWN, job_state
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.fine_tuning_jobs.warnings import job_warnings
from controlplane.rest.schema import ApiModel, Int64, OneOf, Status, output_only, write_only

JOB_STATES = tuple(
    job_state(name)
    for name in (
        "UNSPECIFIED",
        "CREATING",
        "RUNNING",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "DELETING",
        "WRITING_RESULTS",
        "VALIDATING",
        "DELETING_CLEANING_UP",
        "PENDING",
        "EXPIRED",
        "RE_QUEUEING",
        "CREATING_INPUT_DATASET",
        "IDLE",
        "CANCELLING",
        "EARLY_STOPPED",
        "PAUSED",
        "DELETED",
    )
)
STATE = job_state("") + case(SHOWN, value=FineTuningJobRow.state, else_=FineTuningJobRow.state)
"""The state's name, in lists."""
PURPOSES = ("PURPOSE_UNSPECIFIED", "PURPOSE_PILOT")
NO_BUCKETS = "jobs read uploaded datasets only; upload the data"
NO_RESERVATION = "jobs take the platform's trainers in turn, and none are set aside"
NO_REGION = "jobs run on the platform's own machines, which are in one place"
NO_RENDERER = "conversations are rendered by the chat template; set jinjaTemplate"
NO_CHOICE = "jobs train on the accelerators that the platform has"
ABOUT_SAMPLER_CHECKPOINTS = (
    "After so many steps, again and again, the adapter is kept as a checkpoint that can be promoted to a "
    "model; the newest 50. Checkpoints to resume from are kept without being asked for."
)
PRECISIONS = ("WEIGHT_PRECISION_UNSPECIFIED", "BFLOAT16", "INT8", "NF4")
METHOD_OF_PRECISION = {"BFLOAT16": "LORA", "NF4": "QLORA"}
PRECISION_OF_METHOD = {method: precision for precision, method in METHOD_OF_PRECISION.items()}
BaseModelWeightPrecision = Annotated[
    str,
    OneOf(*PRECISIONS),
    Field(description="NF4 keeps the base in four bits. The base model's default when unset."),
]
SamplerInterval = Annotated[int, Field(ge=0, le=1_000_000, description=ABOUT_SAMPLER_CHECKPOINTS)]


def only_refused(default: Any) -> Any:
    """A field of older clients that cannot be honoured: `unsupported` says why. It is in no answer."""
    return Field(default=default, exclude=True)


class AwsS3Config(ApiModel):
    credentials_secret: str = ""
    iam_role_arn: str = ""


class AzureBlobStorageConfig(ApiModel):
    credentials_secret: str = ""
    managed_identity_client_id: str = ""
    tenant_id: str = ""


class WandbConfig(ApiModel):
    """Where a job logs to. The key is kept encrypted until the job has ended, and is never returned."""

    enabled: bool = False
    api_key: SecretStr = write_only()
    project: str = ""
    entity: Annotated[str, Field(description="The key's own when unset.")] = ""
    run_id: Annotated[str, Field(description="The run to go on with; the job's own when unset.")] = ""
    url: str = output_only("")


class TrainingProgress(ApiModel):
    """How far a job is, as its trainer says. A request is a row of the dataset, once in every epoch."""

    percent: int = 0
    epoch: int = 0
    total_input_requests: int = 0
    total_processed_requests: int = 0
    successfully_processed_requests: int = 0
    failed_requests: int = 0
    output_rows: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_token_count: int = 0
    phase: str = ""
    step: int = 0
    max_steps: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    reward_accuracy: Annotated[
        float | None, Field(description="Share of the pairs whose better answer has become the likelier one.")
    ] = None
    reward_margin: Annotated[
        float | None, Field(description="What better answers have gained over worse ones, in the mean.")
    ] = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    peak_memory_bytes: Annotated[Int64, Field(description="The most that the trainer has needed.")] = 0
    gpu_memory_bytes: Annotated[Int64, Field(description="The same on its accelerator, if it has one.")] = 0


SAID_BY_TRAINER = (
    *("phase", "step", "max_steps", "loss", "learning_rate", "grad_norm", "tokens_per_second"),
    *("eta_seconds", "peak_memory_bytes", "gpu_memory_bytes", "reward_accuracy", "reward_margin"),
)


def progress_message(row: FineTuningJobRow) -> TrainingProgress:
    progress, epochs = row.progress, row.settings["epochs"]
    step, steps = progress.get("step") or 0, progress.get("max_steps") or 0
    rows, epoch = progress.get("rows") or 0, progress.get("epoch") or 0.0
    done = min(int(rows * epoch), int(rows * epochs))
    return TrainingProgress(
        percent=100 if row.state in (COMPLETED, EARLY_STOPPED) else min(100, 100 * step // (steps or 1)),
        epoch=int(epoch),
        total_input_requests=int(rows * epochs),
        total_processed_requests=done,
        successfully_processed_requests=done,
        input_tokens=progress.get("tokens_seen") or 0,
        **{name: progress[name] for name in SAID_BY_TRAINER if progress.get(name) is not None},
    )


def wandb_message(row: FineTuningJobRow) -> WandbConfig | None:
    kept = row.settings.get("wandb")
    return WandbConfig(enabled=True, url=row.progress.get("wandb_url", ""), **kept) if kept else None


def shared_message(row: FineTuningJobRow) -> dict[str, Any]:
    """The fields that the messages of both newer collections have, beside the settings of the training."""
    chosen = row.settings
    return {
        "name": row.name,
        "display_name": row.display_name,
        "create_time": row.create_time,
        "completed_time": row.end_time,
        "update_time": row.update_time,
        "state": job_state(row.state),
        "status": Status.of(row),
        "created_by": row.created_by,
        "dataset": chosen["dataset"],
        "evaluation_dataset": chosen["evaluation_dataset"],
        "eval_auto_carveout": chosen["evaluation"] and not chosen["evaluation_dataset"],
        "early_stop": chosen["early_stop"],
        "job_progress": progress_message(row) if row.progress else None,
        "wandb_config": wandb_message(row),
        "effective_settings": effective_settings(row),
        "evaluation_result": evaluation_message(row),
        "lineage": lineage_message(chosen.get("lineage", {})),
        "warnings": job_warnings(row),
        "estimated_cost": Money.of(chosen["estimated_cost"]) if "estimated_cost" in chosen else None,
    }


def training_message(row: FineTuningJobRow) -> dict[str, Any]:
    """The settings of the training that both have: in the job itself, or in its `trainingConfig`."""
    chosen = row.settings
    return {
        "output_model": f"accounts/{row.account_id}/models/{row.model_id}",
        "jinja_template": chosen["templates"].get("jinja_template", ""),
        "base_model": chosen["base_model"],
        "warm_start_from": chosen["warm_start_from"],
        "learning_rate": chosen["learning_rate"],
        "lora_rank": chosen["lora_rank"],
        "epochs": int(chosen["epochs"]),
        "max_context_length": chosen["cutoff_length"],
        "batch_size": chosen["batch_tokens"],
        "batch_size_samples": chosen["batch_rows"],
        "gradient_accumulation_steps": chosen["accumulation"],
        "learning_rate_warmup_steps": chosen["warmup_steps"],
        "optimizer_weight_decay": chosen["weight_decay"],
        "base_model_weight_precision": PRECISION_OF_METHOD.get(chosen.get("tuning_method", ""), ""),
        "sampler_checkpoint_save_interval_steps": chosen.get("sampler_interval_steps", 0),
        "accelerator_count": chosen.get("accelerator_count", 0),
    }
