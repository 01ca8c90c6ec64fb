from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, SecretStr

from controlplane.prices import NANOS
from controlplane.resources.fine_tuning_jobs.schemas import NO_WANDB
from controlplane.resources.fine_tuning_jobs.states import COMPLETED, job_state
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.rest.schema import (
    ApiModel,
    Int64,
    OneOf,
    Status,
    Timestamp,
    not_returned,
    output_only,
    write_only,
)

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
PURPOSES = ("PURPOSE_UNSPECIFIED", "PURPOSE_PILOT")
NO_BUCKETS = "jobs read uploaded datasets only; upload the data"
NO_MTP = "multi-token prediction is not trained"
NO_RESERVATION = "jobs take the platform's trainers in turn, and none are set aside"


class Money(ApiModel):
    """`units` whole units of the currency and `nanos` billionths of one."""

    currency_code: str = "USD"
    units: Int64 = 0
    nanos: int = 0

    @classmethod
    def of(cls, cost_nanos: int) -> Money:
        return cls(units=cost_nanos // NANOS, nanos=cost_nanos % NANOS)


class AwsS3Config(ApiModel):
    credentials_secret: str = ""
    iam_role_arn: str = ""


class AzureBlobStorageConfig(ApiModel):
    credentials_secret: str = ""
    managed_identity_client_id: str = ""
    tenant_id: str = ""


class WandbConfig(ApiModel):
    unsupported: ClassVar[dict[str, str]] = dict.fromkeys(
        ("enabled", "api_key", "project", "entity", "run_id"), NO_WANDB
    )

    enabled: bool = False
    api_key: SecretStr = write_only()
    project: str = ""
    entity: str = ""
    run_id: str = ""
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


class SupervisedFineTuningJob(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "aws_s3_config": NO_BUCKETS,
        "azure_blob_storage_config": NO_BUCKETS,
        "is_turbo": "there is one way to train, on one accelerator",
        "mtp_enabled": NO_MTP,
        "mtp_num_draft_tokens": NO_MTP,
        "mtp_freeze_base_model": NO_MTP,
        "purpose": NO_RESERVATION,
        "use_purpose": NO_RESERVATION,
        "use_reservation": NO_RESERVATION,
        "reservation_target": NO_RESERVATION,
        "region": "jobs run on the platform's own machines, which are in one place",
        "renderer_hugging_face_repo_id": "conversations are rendered by the chat template; set jinjaTemplate",
        "sampler_checkpoint_save_interval_steps": "only the end of a job becomes a model; "
        "checkpoints to resume from are kept without being asked for",
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    create_time: Timestamp | None = output_only()
    completed_time: Timestamp | None = output_only()
    dataset: str = ""
    aws_s3_config: AwsS3Config | None = None
    azure_blob_storage_config: AzureBlobStorageConfig | None = None
    state: Annotated[str, OneOf(*JOB_STATES)] = output_only(JOB_STATES[0])
    status: Status | None = output_only()
    created_by: str = output_only("")
    output_model: Annotated[
        str, Field(description="The model to make: a name, or an id. The job's id when unset.")
    ] = ""
    base_model: str = ""
    warm_start_from: str = ""
    jinja_template: Annotated[str, Field(max_length=200_000)] = ""
    early_stop: bool = False
    epochs: Annotated[int, Field(ge=0, le=100)] = 0
    learning_rate: Annotated[float, Field(ge=0, le=0.1)] = 0
    max_context_length: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    lora_rank: Annotated[
        int | None,
        Field(ge=0, le=64, description="8 when unset. 0 asks for full-parameter tuning, which is refused."),
    ] = None
    wandb_config: WandbConfig | None = None
    evaluation_dataset: str = ""
    is_turbo: bool = False
    eval_auto_carveout: bool = False
    update_time: Timestamp | None = output_only()
    nodes: Annotated[int, Field(ge=0, description="A job trains on one node.")] = 0
    batch_size: Annotated[
        int, Field(ge=0, le=10_000_000, description="Tokens of a batch into which whole rows are packed.")
    ] = 0
    batch_size_samples: Annotated[
        int, Field(ge=0, le=4096, description="Rows of a batch. Not together with batchSize.")
    ] = 0
    gradient_accumulation_steps: Annotated[
        int, Field(ge=0, le=4096, description="Batches of one step of the optimizer.")
    ] = 0
    mtp_enabled: bool = False
    mtp_num_draft_tokens: int = 0
    mtp_freeze_base_model: bool = False
    job_progress: TrainingProgress | None = output_only()
    metrics_file_signed_url: str = output_only(
        "", description="Where the trainer's metrics can be read, a JSON object a line; for an hour, on Get."
    )
    trainer_logs_signed_url: str = output_only(
        "", description="Always empty: what of a log concerns its owner is in `status`."
    )
    learning_rate_warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    estimated_cost: Money | None = output_only()
    optimizer_weight_decay: Annotated[float, Field(ge=0, le=1)] = 0
    purpose: Annotated[str, OneOf(*PURPOSES)] = PURPOSES[0]
    sampler_checkpoint_save_interval_steps: int = 0
    region: str = "REGION_UNSPECIFIED"
    renderer_hugging_face_repo_id: str = ""
    use_purpose: str = ""
    reservation_target: str = ""
    use_reservation: bool = False

    base_model_weight_precision: Any = not_returned()
    accelerator_type: Any = not_returned()
    accelerator_count: Any = not_returned()
    custom_image_tag: Any = not_returned()
    precision: Any = not_returned()
    extra_args: Any = not_returned()


class EstimateCostResponse(ApiModel):
    estimated_cost: Money


PASSED_THROUGH = (
    "dataset",
    "base_model",
    "warm_start_from",
    "evaluation_dataset",
    "early_stop",
    "learning_rate",
    "lora_rank",
)


def job_message(row: FineTuningJobRow) -> SupervisedFineTuningJob:
    chosen = row.settings
    return SupervisedFineTuningJob(
        name=row.name,
        display_name=row.display_name,
        create_time=row.create_time,
        completed_time=row.end_time,
        update_time=row.update_time,
        state=job_state(row.state),
        status=Status.of(row),
        created_by=row.created_by,
        output_model=f"accounts/{row.account_id}/models/{row.model_id}",
        jinja_template=chosen["templates"].get("jinja_template", ""),
        epochs=int(chosen["epochs"]),
        max_context_length=chosen["cutoff_length"],
        eval_auto_carveout=chosen["evaluation"] and not chosen["evaluation_dataset"],
        batch_size=chosen["batch_tokens"],
        batch_size_samples=chosen["batch_rows"],
        gradient_accumulation_steps=chosen["accumulation"],
        learning_rate_warmup_steps=chosen["warmup_steps"],
        optimizer_weight_decay=chosen["weight_decay"],
        nodes=1,
        job_progress=progress_message(row) if row.progress else None,
        estimated_cost=Money.of(chosen["estimated_cost"]) if "estimated_cost" in chosen else None,
        **{field: chosen[field] for field in PASSED_THROUGH},
    )


def progress_message(row: FineTuningJobRow) -> TrainingProgress:
    progress, epochs = row.progress, row.settings["epochs"]
    step, steps = progress.get("step") or 0, progress.get("max_steps") or 0
    rows, epoch = progress.get("rows") or 0, progress.get("epoch") or 0.0
    done = min(int(rows * epoch), int(rows * epochs))
    return TrainingProgress(
        percent=100 if row.state == COMPLETED else min(100, 100 * step // steps) if steps else 0,
        epoch=int(epoch),
        total_input_requests=int(rows * epochs),
        total_processed_requests=done,
        successfully_processed_requests=done,
        input_tokens=progress.get("tokens_seen") or 0,
    )
