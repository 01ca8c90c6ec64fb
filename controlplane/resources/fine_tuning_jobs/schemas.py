from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, SecretStr

from controlplane.resources.fine_tuning_jobs.effective import EffectiveSettings, effective_settings
from controlplane.resources.fine_tuning_jobs.lineage import Lineage, lineage_message
from controlplane.resources.fine_tuning_jobs.outcome import EvaluationResult, evaluation_message
from controlplane.resources.fine_tuning_jobs.queueing import Priority
from controlplane.resources.fine_tuning_jobs.states import SEED_NAMES, SEED_STATES
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.fine_tuning_jobs.warnings import job_warnings, warnings_field
from controlplane.rest.schema import ApiModel, Int64, OneOf, Status, Timestamp, output_only, write_only

TUNING_METHODS = ("TUNING_METHOD_UNSPECIFIED", "LORA", "QLORA")
INTERNAL = "it belongs to the original's own machinery"
AcceleratorCount = Annotated[
    int, Field(ge=0, le=64, description="Processes that train together, each on an accelerator of its own.")
]


class TextCompletion(ApiModel):
    input_template: Annotated[str, Field(min_length=1, max_length=100_000)]
    output_template: Annotated[str, Field(min_length=1, max_length=100_000)]


class TextClassification(ApiModel):
    """Trained as the generation of the label after "{text}\n\nLabel:", and asked in the same words."""

    text: Annotated[str, Field(min_length=1, max_length=1000, description="The field of the text.")]
    label: Annotated[str, Field(min_length=1, max_length=1000, description="The field of its label.")]


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
    grad_norm: float | None = None
    tokens_seen: int = 0
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    peak_memory_bytes: Annotated[Int64, Field(description="The most that the trainer has needed.")] = 0
    gpu_memory_bytes: Annotated[Int64, Field(description="The same on its accelerator, if it has one.")] = 0


class FineTuningJob(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "legacy_job": INTERNAL,
        "draft_model_data": INTERNAL,
        "draft_model": "draft models are not available",
        "genie": INTERNAL,
        "container_version": INTERNAL,
        "mask_token": "the loss mask follows the chat template",
        "pad_token": "it is taken from the tokenizer",
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
    text_classification: TextClassification | None = None
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
    gradient_accumulation_steps: Annotated[
        int, Field(ge=0, le=4096, description="Batches of one step of the optimizer.")
    ] = 0
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0
    tuning_method: Annotated[
        str,
        OneOf(*TUNING_METHODS),
        Field(description="LORA, or QLORA: with the base in four bits. The base model's default when unset."),
    ] = TUNING_METHODS[0]
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Of everything random; 0 is unset.")] = 0
    accelerator_count: AcceleratorCount = 0
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
    priority: Priority = 0
    update_time: Timestamp | None = output_only()
    progress: JobProgress | None = output_only()
    effective_settings: EffectiveSettings | None = output_only()
    evaluation_result: EvaluationResult | None = output_only()
    lineage: Lineage | None = output_only()
    warnings: list[str] = warnings_field()


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
    "micro_batch_size",
    "cutoff_length",
    "early_stop",
    "evaluation",
    "evaluation_split",
)


NEW_SETTINGS = ("weight_decay", "lora_dropout", "tuning_method", "seed", "accelerator_count")
"""Jobs made by earlier versions do not have them."""


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
        text_classification=TextClassification(**templates) if row.kind == "text_classification" else None,
        conversation=Conversation(**templates) if row.kind == "conversation" else None,
        base_model=chosen["base_model"],
        warm_start_from=chosen["warm_start_from"],
        evaluation_dataset=chosen["evaluation_dataset"],
        priority=row.priority,
        update_time=row.update_time,
        batch_size=chosen.get("batch_rows", chosen["batch_size"]),
        gradient_accumulation_steps=chosen.get("accumulation", 1),
        **{field: chosen[field] for field in NEW_SETTINGS if field in chosen},
        effective_settings=effective_settings(row),
        progress=JobProgress(**_known(row.progress)) if row.progress else None,
        evaluation_result=evaluation_message(row),
        lineage=lineage_message(chosen.get("lineage", {})),
        warnings=job_warnings(row),
        wandb_url=row.progress.get("wandb_url", ""),
        wandb_entity=chosen.get("wandb", {}).get("entity", ""),
        wandb_project=chosen.get("wandb", {}).get("project", ""),
        **{field: chosen[field] for field in PASSED_THROUGH},
    )


def _known(progress: dict[str, Any]) -> dict[str, Any]:
    return {name: progress[name] for name in JobProgress.model_fields if progress.get(name) is not None}
