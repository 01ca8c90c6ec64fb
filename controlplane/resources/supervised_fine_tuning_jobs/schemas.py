from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from controlplane.resources.fine_tuning_jobs.costs import Money
from controlplane.resources.fine_tuning_jobs.effective import EffectiveSettings
from controlplane.resources.fine_tuning_jobs.lineage import Lineage
from controlplane.resources.fine_tuning_jobs.newer import (
    JOB_STATES,
    NO_BUCKETS,
    NO_CHOICE,
    NO_REGION,
    NO_RENDERER,
    NO_RESERVATION,
    PRECISIONS,
    PURPOSES,
    AwsS3Config,
    AzureBlobStorageConfig,
    BaseModelWeightPrecision,
    SamplerInterval,
    TrainingProgress,
    WandbConfig,
    only_refused,
    shared_message,
    training_message,
)
from controlplane.resources.fine_tuning_jobs.outcome import EvaluationResult
from controlplane.resources.fine_tuning_jobs.schemas import INTERNAL, AcceleratorCount
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.fine_tuning_jobs.warnings import warnings_field
from controlplane.rest.schema import ApiModel, OneOf, Status, Timestamp, output_only

NO_MTP = "multi-token prediction is not trained"


class SupervisedFineTuningJob(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "aws_s3_config": NO_BUCKETS,
        "azure_blob_storage_config": NO_BUCKETS,
        "is_turbo": "there is one way to train; acceleratorCount has several accelerators train together",
        "mtp_enabled": NO_MTP,
        "mtp_num_draft_tokens": NO_MTP,
        "mtp_freeze_base_model": NO_MTP,
        "purpose": NO_RESERVATION,
        "use_purpose": NO_RESERVATION,
        "use_reservation": NO_RESERVATION,
        "reservation_target": NO_RESERVATION,
        "region": NO_REGION,
        "renderer_hugging_face_repo_id": NO_RENDERER,
        "accelerator_type": NO_CHOICE,
        "custom_image_tag": INTERNAL,
        "precision": "baseModelWeightPrecision says how the base is held",
        "extra_args": INTERNAL,
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
    effective_settings: EffectiveSettings | None = output_only()
    evaluation_result: EvaluationResult | None = output_only()
    lineage: Lineage | None = output_only()
    warnings: list[str] = warnings_field()
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
    sampler_checkpoint_save_interval_steps: SamplerInterval = 0
    region: str = "REGION_UNSPECIFIED"
    renderer_hugging_face_repo_id: str = ""
    use_purpose: str = ""
    reservation_target: str = ""
    use_reservation: bool = False
    base_model_weight_precision: BaseModelWeightPrecision = PRECISIONS[0]
    accelerator_count: AcceleratorCount = 0
    accelerator_type: str = only_refused("ACCELERATOR_TYPE_UNSPECIFIED")
    custom_image_tag: str = only_refused("")
    precision: str = only_refused("PRECISION_UNSPECIFIED")
    extra_args: list[str] = only_refused([])


def job_message(row: FineTuningJobRow) -> SupervisedFineTuningJob:
    return SupervisedFineTuningJob(
        **shared_message(row),
        **training_message(row),
        nodes=1,
    )
