from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from controlplane.resources.deployed_models import states as deployed
from controlplane.resources.deployments.enums import MOST_GUESSES, PRECISIONS
from controlplane.resources.fine_tuning_jobs.lineage import Lineage, lineage_message
from controlplane.resources.models.states import (
    BASE_KINDS,
    CHECKPOINT_FORMATS,
    HF_BASE_MODEL,
    KINDS,
    SNAPSHOT_TYPES,
)
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.uploads import READY, STATES
from controlplane.rest.schema import (
    ApiModel,
    Empty,
    Int64,
    OneOf,
    Status,
    Timestamp,
    not_returned,
    output_only,
)

NO_HEADS = "models are served without heads that guess ahead"
FROM_FILES = "Read from the files; where a client said something else, the check's answer warns of it."
CheckpointFormat = Annotated[str, OneOf(*CHECKPOINT_FORMATS)]
Precision = Annotated[str, OneOf(*PRECISIONS)]


class BaseModelDetails(ApiModel):
    """Read from the uploaded files: what a client sends is replaced by what is found there."""

    unsupported: ClassVar[dict[str, str]] = {
        "world_size": "checkpoints are not cut up beforehand; the deployment's acceleratorCount does that",
        "supports_fireattention": "models are served by another engine",
        "supports_mtp": NO_HEADS,
    }

    world_size: int = 1
    checkpoint_format: CheckpointFormat = "CHECKPOINT_FORMAT_UNSPECIFIED"
    huggingface_files: list[str] = output_only([])
    parameter_count: Annotated[Int64, Field(ge=0, description=FROM_FILES)] = 0
    moe: Annotated[bool, Field(description=FROM_FILES)] = False
    tunable: Annotated[bool, Field(description=FROM_FILES)] = False
    model_type: Annotated[str, Field(max_length=200, description=FROM_FILES)] = ""
    supports_fireattention: bool = False
    default_precision: Precision = output_only("PRECISION_UNSPECIFIED")
    supports_mtp: bool = False


class PeftDetails(ApiModel):
    """`baseModel` says what the addon is for. The rest is read from the uploaded files: what a client sends
    is replaced by what is found there."""

    unsupported: ClassVar[dict[str, str]] = {"merge_addon_model_name": "addons are never merged"}

    base_model: str = ""
    r: Annotated[int, Field(ge=0, le=64, description=FROM_FILES)] = 0
    target_modules: Annotated[
        list[Annotated[str, Field(max_length=200)]], Field(max_length=100, description=FROM_FILES)
    ] = []
    base_model_type: str = output_only("")
    merge_addon_model_name: str = ""


class ConversationConfig(ApiModel):
    style: str
    system: str = ""
    template: str = ""


class DeployedModelRef(ApiModel):
    name: str = ""
    deployment: str = ""
    state: Annotated[str, OneOf(*deployed.STATES)] = deployed.STATES[0]
    default: bool = False
    public: bool = False


class TypeDate(ApiModel):
    """google.type.Date"""

    year: Annotated[int, Field(ge=0, le=9999)] = 0
    month: Annotated[int, Field(ge=0, le=12)] = 0
    day: Annotated[int, Field(ge=0, le=31)] = 0


class Model(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "teft_details": "TEFT addons are not available",
        "conversation_config": "the chat template is read from the uploaded files: tokenizer_config.json or "
        "chat_template.jinja of a base model, fireworks.json of an addon",
        "deprecation_date": "there are no serverless deployments that could be taken down",
        "training_context_length": "set cutoffLength on the job instead",
        "snapshot_type": "a model's files are uploaded as a whole",
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    description: Annotated[str, Field(max_length=999)] = ""
    create_time: Timestamp | None = output_only()
    state: Annotated[str, OneOf(*STATES)] = output_only(STATES[0])
    status: Status | None = output_only()
    kind: Annotated[
        str,
        OneOf(*KINDS),
        Field(description="HF_BASE_MODEL when unset and baseModelDetails is there; otherwise HF_PEFT_ADDON."),
    ] = KINDS[0]
    github_url: Annotated[str, Field(max_length=2000)] = ""
    hugging_face_url: Annotated[str, Field(max_length=2000)] = ""
    base_model_details: BaseModelDetails | None = None
    peft_details: PeftDetails | None = None
    teft_details: Empty | None = None
    public: bool = False
    conversation_config: ConversationConfig | None = None
    context_length: Annotated[
        int,
        Field(ge=0, le=100_000_000, description="The model's own when unset; less bounds its deployments."),
    ] = 0
    supports_image_input: Annotated[bool, Field(description=FROM_FILES)] = False
    supports_tools: Annotated[bool, Field(description=FROM_FILES)] = False
    imported_from: str = output_only("")
    fine_tuning_job: str = output_only("")
    lineage: Lineage | None = output_only()
    default_draft_model: Annotated[
        str,
        Field(
            description="The base model that guesses tokens ahead in new deployments of this one: its full "
            "name, or an own id. See `draftModel` of deployments."
        ),
    ] = ""
    default_draft_token_count: Annotated[
        int,
        Field(
            ge=0,
            le=MOST_GUESSES,
            description="How many tokens it guesses at a time. Required with defaultDraftModel.",
        ),
    ] = 0
    deployed_model_refs: list[DeployedModelRef] = output_only([], description="Filled by Get only.")
    cluster: str = output_only("")
    deprecation_date: TypeDate | None = None
    calibrated: bool = output_only(False)
    tunable: bool = output_only(False)
    supports_lora: Annotated[bool, Field(description=FROM_FILES)] = False
    use_hf_apply_chat_template: Annotated[
        bool, Field(description="True of every model with a chat template: it is always used.")
    ] = False
    update_time: Timestamp | None = output_only()
    default_sampling_params: dict[str, float] = output_only(
        {}, description="What generation_config.json sets, for requests that do not say."
    )
    rl_tunable: bool = output_only(False)
    training_context_length: int = 0
    snapshot_type: Annotated[str, OneOf(*SNAPSHOT_TYPES)] = SNAPSHOT_TYPES[0]
    supports_serverless: bool = output_only(False)
    supervised_lora_tunable: bool = output_only(False)
    supervised_full_parameter_tunable: bool = output_only(False)
    rl_lora_tunable: bool = output_only(False)
    rl_full_parameter_tunable: bool = output_only(False)
    supported_precisions: list[Precision] = output_only([])
    supported_precisions_with_calibration: list[Precision] = output_only([])

    created_by: Any = not_returned()
    tokens_per_second: Any = not_returned()
    featured_priority: Any = not_returned()
    sku_infos: Any = not_returned()
    extra_deployment_args: Any = not_returned()
    gcs_uri: Any = not_returned()
    image_tag: Any = not_returned()
    annotations: Any = not_returned()


OF_OLDER_CLIENTS = (
    "created_by",
    "tokens_per_second",
    "featured_priority",
    "sku_infos",
    "extra_deployment_args",
    "gcs_uri",
    "image_tag",
    "annotations",
)


class CreateModelRequest(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {"cluster": "models are stored once, in the platform's own store"}

    model_id: str
    model: Model = Field(default_factory=Model)
    cluster: str = ""


class ValidateUploadResponse(ApiModel):
    warnings: list[str] = Field(default_factory=list)


class PrepareModelRequest(ApiModel):
    precision: Precision = PRECISIONS[0]
    read_mask: Annotated[str, Field(description="The answer is empty, whatever this names.")] = ""


class ValidateModelConfigRequest(ApiModel):
    config_json: str
    tokenizer_config_json: str = ""


def model_message(row: ModelRow, base: ModelRow | None) -> Model:
    """A model as the API shows it. `base` is the base model's row, for an addon."""
    facts = row.facts
    is_base = row.kind in BASE_KINDS
    tunable = row.state == READY and row.kind == HF_BASE_MODEL and bool(facts.get("supports_lora"))
    of_base = facts if is_base or base is None else base.facts
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
        base_model_details=_base_model_details(row, tunable) if is_base else None,
        peft_details=None if is_base else _peft_details(facts, base),
        public=row.public,
        conversation_config=ConversationConfig(**row.conversation_config)
        if row.conversation_config
        else None,
        context_length=row.context_length,
        supports_image_input=row.supports_image_input,
        supports_tools=row.supports_tools,
        fine_tuning_job=row.fine_tuning_job,
        lineage=lineage_message(row.lineage),
        tunable=tunable,
        supports_lora=bool(facts.get("supports_lora")),
        use_hf_apply_chat_template=row.conversation_config is not None,
        default_draft_model=row.default_draft_model,
        default_draft_token_count=row.default_draft_token_count,
        supervised_lora_tunable=tunable,
        update_time=row.update_time,
        default_sampling_params=of_base.get("default_sampling_params", {}),
        supported_precisions=supported_precisions(row),
    )


def supported_precisions(row: ModelRow) -> list[str]:
    found = row.facts.get("default_precision")
    return [found] if found else []


def _base_model_details(row: ModelRow, tunable: bool) -> BaseModelDetails:
    return BaseModelDetails(
        checkpoint_format="HUGGINGFACE",
        huggingface_files=sorted(row.files) if row.state == READY else [],
        parameter_count=row.facts.get("parameter_count", 0),
        moe=row.facts.get("moe", False),
        tunable=tunable,
        model_type=row.facts.get("model_type", ""),
        default_precision=row.facts.get("default_precision") or PRECISIONS[0],
    )


def _peft_details(facts: dict[str, Any], base: ModelRow | None) -> PeftDetails:
    return PeftDetails(
        base_model=base.name if base else "",
        r=facts.get("r", 0),
        target_modules=facts.get("target_modules", []),
        base_model_type=(base.facts if base else {}).get("model_type", ""),
    )
