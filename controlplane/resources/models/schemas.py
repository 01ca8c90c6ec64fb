from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from controlplane.resources.models.tables import ModelRow
from controlplane.rest.schema import ApiModel, Int64, Status, Timestamp, output_only

NO_DRAFT = "speculative decoding is not available yet"
FROM_FILES = "it is read from the uploaded files"


class BaseModelDetails(ApiModel):
    """Read from the uploaded files: what a client sends is replaced by what is found there."""

    world_size: int = 1
    checkpoint_format: str = "CHECKPOINT_FORMAT_UNSPECIFIED"
    huggingface_files: list[str] = Field(default_factory=list)
    parameter_count: Int64 = 0
    moe: bool = False
    tunable: bool = False
    model_type: str = ""
    supports_fireattention: bool = False
    default_precision: str = "PRECISION_UNSPECIFIED"
    supports_mtp: bool = False


class PeftDetails(ApiModel):
    """`baseModel` says what the addon is for. The rest is read from the uploaded files: what a client sends
    is replaced by what is found there."""

    unsupported: ClassVar[dict[str, str]] = {"merge_addon_model_name": "addons are never merged"}

    base_model: str = ""
    r: int = 0
    target_modules: list[str] = Field(default_factory=list)
    base_model_type: str = ""
    merge_addon_model_name: str = ""


class ConversationConfig(ApiModel):
    style: str
    system: str = ""
    template: str = ""


class DeployedModelRef(ApiModel):
    name: str = ""
    deployment: str = ""
    state: str = "STATE_UNSPECIFIED"
    default: bool = False
    public: bool = False


class Model(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "teft_details": "TEFT addons are not available",
        "conversation_config": FROM_FILES,
        "default_draft_model": NO_DRAFT,
        "default_draft_token_count": NO_DRAFT,
        "deprecation_date": "models do not expire",
        "use_hf_apply_chat_template": "the model's own chat template is always used",
        "training_context_length": "set cutoffLength on the job instead",
        "snapshot_type": "snapshots are not available",
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    description: Annotated[str, Field(max_length=999)] = ""
    create_time: Timestamp | None = output_only()
    state: str = output_only("STATE_UNSPECIFIED")
    status: Status | None = output_only()
    kind: str = Field(
        default="KIND_UNSPECIFIED",
        description="HF_BASE_MODEL when unset and baseModelDetails is there; otherwise HF_PEFT_ADDON.",
    )
    github_url: Annotated[str, Field(max_length=2000)] = ""
    hugging_face_url: Annotated[str, Field(max_length=2000)] = ""
    base_model_details: BaseModelDetails | None = None
    peft_details: PeftDetails | None = None
    teft_details: dict[str, Any] | None = None
    public: bool = False
    conversation_config: ConversationConfig | None = None
    context_length: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    supports_image_input: bool = False
    supports_tools: bool = False
    imported_from: str = output_only("")
    fine_tuning_job: str = output_only("")
    default_draft_model: str = ""
    default_draft_token_count: int = 0
    deployed_model_refs: list[DeployedModelRef] = output_only([])
    cluster: str = output_only("")
    deprecation_date: dict[str, int] | None = None
    calibrated: bool = output_only(False)
    tunable: bool = output_only(False)
    supports_lora: bool = output_only(False)
    use_hf_apply_chat_template: bool = False
    update_time: Timestamp | None = output_only()
    default_sampling_params: dict[str, float] = output_only({})
    rl_tunable: bool = output_only(False)
    training_context_length: int = 0
    snapshot_type: str = "SNAPSHOT_TYPE_UNSPECIFIED"
    supports_serverless: bool = output_only(False)
    supervised_lora_tunable: bool = output_only(False)
    supervised_full_parameter_tunable: bool = output_only(False)
    rl_lora_tunable: bool = output_only(False)
    rl_full_parameter_tunable: bool = output_only(False)
    supported_precisions: list[str] = output_only([])
    supported_precisions_with_calibration: list[str] = output_only([])


class CreateModelRequest(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {"cluster": "models are stored once, in the platform's own store"}

    model_id: str
    model: Model = Field(default_factory=Model)
    cluster: str = ""


class ValidateUploadResponse(ApiModel):
    warnings: list[str] = Field(default_factory=list)


def model_message(row: ModelRow, base: ModelRow | None) -> Model:
    """A model as the API shows it. `base` is the base model's row, for an addon."""
    facts = row.facts
    is_base = row.kind == "HF_BASE_MODEL"
    ready = row.state == "READY"
    tunable = ready and is_base and bool(facts.get("supports_lora"))
    return Model(
        name=row.name,
        display_name=row.display_name,
        description=row.description,
        create_time=row.create_time,
        state=row.state,
        status=Status.of(row),
        kind=row.kind,
        github_url=row.github_url,
        hugging_face_url=row.hugging_face_url,
        base_model_details=_base_model_details(facts, tunable) if is_base else None,
        peft_details=None if is_base else _peft_details(facts, base),
        public=row.public,
        conversation_config=ConversationConfig(**row.conversation_config)
        if row.conversation_config
        else None,
        context_length=row.context_length,
        supports_image_input=row.supports_image_input,
        supports_tools=row.supports_tools,
        fine_tuning_job=row.fine_tuning_job,
        tunable=tunable,
        supports_lora=bool(facts.get("supports_lora")),
        supervised_lora_tunable=tunable,
        update_time=row.update_time,
        supported_precisions=[facts["default_precision"]] if facts.get("default_precision") else [],
    )


def _base_model_details(facts: dict[str, Any], tunable: bool) -> BaseModelDetails:
    return BaseModelDetails(
        checkpoint_format="HUGGINGFACE",
        parameter_count=facts.get("parameter_count", 0),
        moe=facts.get("moe", False),
        tunable=tunable,
        model_type=facts.get("model_type", ""),
        default_precision=facts.get("default_precision") or "PRECISION_UNSPECIFIED",
    )


def _peft_details(facts: dict[str, Any], base: ModelRow | None) -> PeftDetails:
    return PeftDetails(
        base_model=base.name if base else "",
        r=facts.get("r", 0),
        target_modules=facts.get("target_modules", []),
        base_model_type=(base.facts if base else {}).get("model_type", ""),
    )
