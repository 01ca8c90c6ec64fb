from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, create_model

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
from controlplane.resources.fine_tuning_jobs.queueing import Priority
from controlplane.resources.fine_tuning_jobs.schemas import INTERNAL, AcceleratorCount
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.fine_tuning_jobs.warnings import warnings_field
from controlplane.rest.schema import ApiModel, OneOf, Status, Timestamp, output_only

METHODS = ("METHOD_UNSPECIFIED", "GRPO", "DAPO", "DPO", "ORPO", "GSPO_TOKEN")
NO_CACHE = "what the reference model makes of a pair is worked out in the step that needs it, and not kept"
NO_SHARDING = "acceleratorCount has several accelerators share the pairs of a step"

# 1 is how else to say that there is one.
Ways = Annotated[int, Field(ge=0), AfterValidator(lambda ways: 0 if ways == 1 else ways)]


class TrainerShardingScheme(ApiModel):
    unsupported: ClassVar[dict[str, str]] = dict.fromkeys(
        (
            "tensor_parallelism",
            "pipeline_parallelism",
            "context_parallelism",
            "expert_parallelism",
            "sequence_parallelism",
        ),
        NO_SHARDING,
    )

    tensor_parallelism: Ways = 0
    pipeline_parallelism: Ways = 0
    context_parallelism: Ways = 0
    expert_parallelism: Ways = 0
    sequence_parallelism: bool = False


class TrainingConfig(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "region": NO_REGION,
        "accelerator_type": NO_CHOICE,
        "is_intermediate": INTERNAL,
        "toleration": INTERNAL,
    }

    output_model: Annotated[
        str, Field(description="The model to make: a name, or an id. The job's id when unset.")
    ] = ""
    base_model: str = ""
    warm_start_from: Annotated[
        str, Field(description="A LoRA addon to go on from. Answers are compared with what it makes of them.")
    ] = ""
    jinja_template: Annotated[str, Field(max_length=200_000)] = ""
    learning_rate: Annotated[float, Field(ge=0, le=0.1)] = 0
    max_context_length: Annotated[
        int, Field(ge=0, le=10_000_000, description="The most tokens of what was asked and one answer.")
    ] = 0
    lora_rank: Annotated[
        int | None,
        Field(ge=0, le=64, description="8 when unset. 0 asks for full-parameter tuning, which is refused."),
    ] = None
    epochs: Annotated[int, Field(ge=0, le=100)] = 0
    batch_size: Annotated[
        int,
        Field(
            ge=0,
            le=10_000_000,
            description="Tokens of a batch of whole pairs, each answer as long as the longest of the batch.",
        ),
    ] = 0
    gradient_accumulation_steps: Annotated[
        int, Field(ge=0, le=4096, description="Batches of one step of the optimizer.")
    ] = 0
    learning_rate_warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    batch_size_samples: Annotated[
        int, Field(ge=0, le=4096, description="Pairs of a batch. Not together with batchSize.")
    ] = 0
    optimizer_weight_decay: Annotated[float, Field(ge=0, le=1)] = 0
    trainer_sharding_scheme: TrainerShardingScheme | None = None
    lora_alpha: Annotated[
        int, Field(ge=0, le=1024, description="Twice the rank when unset. 0 where it is an addon's own.")
    ] = 0
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0
    lora_target_modules: Annotated[
        list[Annotated[str, Field(max_length=100)]],
        Field(max_length=50, description="All linear layers but the output layer when unset."),
    ] = Field(default_factory=list)
    sampler_checkpoint_save_interval_steps: SamplerInterval = 0
    region: str = "REGION_UNSPECIFIED"
    base_model_weight_precision: BaseModelWeightPrecision = PRECISIONS[0]
    accelerator_type: str = only_refused("ACCELERATOR_TYPE_UNSPECIFIED")
    accelerator_count: AcceleratorCount = 0
    is_intermediate: bool = only_refused(False)
    toleration: str = only_refused("")


class DpoConfig(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "ref_cache_concurrency": NO_CACHE,
        "ref_cache_batch_size": NO_CACHE,
    }

    beta: Annotated[
        float, Field(ge=0, le=1, description="How strongly the reference model holds back; 0.1 when unset.")
    ] = 0
    ref_cache_concurrency: int = 0
    ref_cache_batch_size: int = 0


# Python has a meaning of its own for the field's name.
_LAMBDA: dict[str, Any] = {
    "lambda": (
        float,
        Field(0, ge=0, le=100, description="How much the odds of the two answers count; 0.1 when unset."),
    )
}
_WithLambda: Any = create_model("_WithLambda", __base__=ApiModel, **_LAMBDA)


class OrpoConfig(_WithLambda):
    pass


class LossConfig(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "kl_beta": "it belongs to reinforcement learning; lossConfig.dpo.beta does this for pairs"
    }

    method: Annotated[str, OneOf(*METHODS), Field(description="DPO when unset.")] = METHODS[0]
    kl_beta: float = 0
    dpo: DpoConfig | None = None
    orpo: OrpoConfig | None = None


class DpoJob(ApiModel):
    """Preference tuning: of each pair of answers, the better one is to become the likelier one."""

    unsupported: ClassVar[dict[str, str]] = {
        "aws_s3_config": NO_BUCKETS,
        "azure_blob_storage_config": NO_BUCKETS,
        "purpose": NO_RESERVATION,
        "use_reservation": NO_RESERVATION,
        "reservation_target": NO_RESERVATION,
        "renderer_hugging_face_repo_id": NO_RENDERER,
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    create_time: Timestamp | None = output_only()
    completed_time: Timestamp | None = output_only()
    dataset: Annotated[str, Field(description="A dataset of format PREFERENCE.")] = ""
    evaluation_dataset: str = ""
    eval_auto_carveout: bool = False
    early_stop: bool = False
    state: Annotated[str, OneOf(*JOB_STATES)] = output_only(JOB_STATES[0])
    status: Status | None = output_only()
    created_by: str = output_only("")
    training_config: TrainingConfig = Field(default_factory=TrainingConfig)
    wandb_config: WandbConfig | None = None
    trainer_logs_signed_url: str = output_only("", description="Always empty: the job's log is its `logs`.")
    loss_config: LossConfig = Field(default_factory=LossConfig)
    aws_s3_config: AwsS3Config | None = None
    azure_blob_storage_config: AzureBlobStorageConfig | None = None
    priority: Priority = 0
    update_time: Timestamp | None = output_only()
    job_progress: TrainingProgress | None = output_only()
    effective_settings: EffectiveSettings | None = output_only()
    evaluation_result: EvaluationResult | None = output_only()
    lineage: Lineage | None = output_only()
    warnings: list[str] = warnings_field()
    estimated_cost: Money | None = output_only()
    purpose: Annotated[str, OneOf(*PURPOSES)] = PURPOSES[0]
    renderer_hugging_face_repo_id: str = ""
    reservation_target: str = ""
    use_reservation: bool = False


class MetricsFileEndpoint(ApiModel):
    signed_url: Annotated[
        str,
        Field(description="Where they can be read, a JSON object a line; empty before there are any."),
    ] = ""


def job_message(row: FineTuningJobRow) -> DpoJob:
    return DpoJob(
        **shared_message(row),
        training_config=_training_message(row),
        loss_config=_loss_message(row.settings["preference"]),
        priority=row.priority,
    )


def _training_message(row: FineTuningJobRow) -> TrainingConfig:
    chosen = row.settings
    return TrainingConfig(
        **training_message(row),
        lora_alpha=0 if chosen["warm_start_from"] else chosen["lora_alpha"],
        lora_dropout=chosen["lora_dropout"],
        lora_target_modules=chosen["lora_target_modules"],
    )


def _loss_message(preference: dict[str, Any]) -> LossConfig:
    if preference["method"] == "orpo":
        return LossConfig(method="ORPO", orpo=OrpoConfig(**{"lambda": preference["odds_weight"]}))
    return LossConfig(method="DPO", dpo=DpoConfig(beta=preference["beta"]))
