from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, SecretStr

from controlplane.resources.fine_tuning_jobs.states import SEED_NAMES, SEED_STATES
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.rest.schema import ApiModel, Int64, OneOf, Status, Timestamp, output_only, write_only

NO_WANDB = "Weights & Biases logging is not available yet"
INTERNAL = "it belongs to the original's own machinery"


class TextCompletion(ApiModel):
    input_template: Annotated[str, Field(min_length=1, max_length=100_000)]
    output_template: Annotated[str, Field(min_length=1, max_length=100_000)]


class Conversation(ApiModel):
    jinja_template: Annotated[str, Field(max_length=200_000)] = ""


class DatasetRef(ApiModel):
    dataset: str


class JobProgress(ApiModel):
    """How far a running job is."""

    phase: str = ""
    step: int = 0
    max_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    learning_rate: float | None = None
    tokens_seen: int = 0
    tokens_per_second: float | None = None
    eta_seconds: float | None = None


class FineTuningJob(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "text_classification": "classification is not available yet; use conversation or textCompletion",
        "legacy_job": INTERNAL,
        "draft_model_data": INTERNAL,
        "draft_model": "draft models are not available",
        "genie": INTERNAL,
        "container_version": INTERNAL,
        "mask_token": "the loss mask follows the chat template",
        "pad_token": "it is taken from the tokenizer",
        "wandb_entity": NO_WANDB,
        "wandb_project": NO_WANDB,
        "wandb_api_key": NO_WANDB,
        "dependent_jobs": INTERNAL,
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    create_time: Timestamp | None = output_only()
    state: Annotated[str, OneOf(*SEED_STATES)] = output_only(SEED_STATES[0])
    dataset: str = ""
    datasets: Annotated[list[DatasetRef], Field(max_length=1)] = Field(default_factory=list)
    status: Status | None = output_only()
    created_by: str = output_only("")
    container_version: str = ""
    model_id: str = ""
    text_completion: TextCompletion | None = None
    text_classification: dict[str, Any] | None = None
    conversation: Conversation | None = None
    legacy_job: dict[str, Any] | None = None
    draft_model_data: dict[str, Any] | None = None
    draft_model: dict[str, Any] | None = None
    genie: dict[str, Any] | None = None
    base_model: str = ""
    warm_start_from: str = ""
    early_stop: bool = False
    epochs: Annotated[float, Field(ge=0, le=100)] = 0
    learning_rate: Annotated[float, Field(ge=0, le=1)] = 0
    lr_scheduler_type: str = ""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    lora_alpha: Annotated[int, Field(ge=0, le=1024)] = 0
    lora_rank: Annotated[int, Field(ge=0, le=64)] = 0
    lora_target_modules: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=50)] = Field(
        default_factory=list
    )
    batch_size: Annotated[int, Field(ge=0, lt=1024)] = 0
    micro_batch_size: Annotated[int, Field(ge=0, lt=1024)] = 0
    mask_token: str = ""
    pad_token: str = ""
    cutoff_length: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    wandb_url: str = output_only("")
    wandb_entity: str = ""
    wandb_project: str = ""
    wandb_api_key: SecretStr = write_only()
    evaluation: bool = False
    evaluation_split: Annotated[float, Field(ge=0, lt=1)] = 0
    evaluation_dataset: str = ""
    dependent_jobs: list[str] = Field(default_factory=list)
    update_time: Timestamp | None = output_only()
    progress: JobProgress | None = output_only()


class JobMetrics(ApiModel):
    """What the trainer logged, a record a step, oldest first."""

    metrics: list[dict[str, Any]] = Field(default_factory=list)


class JobLogs(ApiModel):
    """A page of what the job's trainers printed, oldest first."""

    text: str = ""
    offset: Annotated[Int64, Field(description="Where the text begins, in bytes of the whole log.")] = 0
    next_offset: Annotated[Int64, Field(description="Where the next page begins.")] = 0
    complete: Annotated[
        bool, Field(description="The job has ended, and this page ends with the last that it printed.")
    ] = False


PASSED_THROUGH = (
    "epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "lora_alpha",
    "lora_rank",
    "lora_target_modules",
    "batch_size",
    "micro_batch_size",
    "cutoff_length",
    "early_stop",
    "evaluation",
    "evaluation_split",
)


def job_message(row: FineTuningJobRow) -> FineTuningJob:
    chosen = row.settings
    templates = chosen.get("templates", {})
    return FineTuningJob(
        name=row.name,
        display_name=row.display_name,
        create_time=row.create_time,
        state=SEED_NAMES.get(row.state, row.state),
        dataset=chosen["dataset"],
        status=Status.of(row),
        created_by=row.created_by,
        model_id=row.model_id,
        text_completion=TextCompletion(**templates) if row.kind == "text_completion" else None,
        conversation=Conversation(**templates) if row.kind == "conversation" else None,
        base_model=chosen["base_model"],
        warm_start_from=chosen["warm_start_from"],
        evaluation_dataset=chosen["evaluation_dataset"],
        update_time=row.update_time,
        progress=JobProgress(**_known(row.progress)) if row.progress else None,
        **{field: chosen[field] for field in PASSED_THROUGH},
    )


def _known(progress: dict[str, Any]) -> dict[str, Any]:
    return {name: progress[name] for name in JobProgress.model_fields if progress.get(name) is not None}
