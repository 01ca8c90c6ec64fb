from __future__ import annotations

from typing import Annotated

from pydantic import Field

from controlplane.resources.deployments.enums import AcceleratorType, Precision, PresetType
from controlplane.resources.deployments.schemas import (
    AddonSlots,
    Deployment,
    DraftModel,
    DraftTokens,
    NgramLength,
    SessionAffinity,
)
from controlplane.resources.tables import DeploymentShapeRow, DeploymentShapeVersionRow
from controlplane.rest.schema import ApiModel, Int64, Timestamp, output_only


class DeploymentShape(ApiModel):
    """How a base model is to be served: settings that a deployment takes over by naming the shape.

    Every change of a shape makes a new version of it. A deployment keeps the settings of the version that it
    was made with.
    """

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    description: Annotated[str, Field(max_length=999)] = ""
    create_time: Timestamp | None = output_only()
    update_time: Timestamp | None = output_only()
    base_model: str = Field(
        default="", description="A READY base model: its full name, or an own id. It stays as created."
    )
    model_type: str = output_only("")
    parameter_count: Int64 = output_only(0)
    accelerator_count: Annotated[int, Field(ge=0, le=1024)] = 0
    accelerator_type: AcceleratorType = "ACCELERATOR_TYPE_UNSPECIFIED"
    precision: Precision = "PRECISION_UNSPECIFIED"
    disable_deployment_size_validation: bool = Field(
        default=False, description="Has no effect: the size of a deployment is not validated."
    )
    enable_addons: bool = False
    draft_token_count: DraftTokens = 0
    draft_model: DraftModel = ""
    ngram_speculation_length: NgramLength = 0
    disable_speculative_decoding: bool = Field(
        default=False, description="Deployments of this shape guess nothing ahead, and may not ask for it."
    )
    enable_session_affinity: SessionAffinity = False
    num_lora_device_cached: AddonSlots = 0
    max_context_length: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    preset_type: PresetType = Field(
        default="PRESET_TYPE_UNSPECIFIED", description="What the shape is meant for. It sets nothing."
    )


class DeploymentShapeVersion(ApiModel):
    """A deployment shape as it was after a change of it.

    `validated` is a statement of those who may change the shape: that deployments of this version serve as
    they should. The platform believes it only as far as it can check: when it is made, the base model has to
    be READY and an engine with these settings startable here. Nothing becomes validated by itself.

    A `public` version can be read, and named by deployments, in every account that may read its base model.
    But `default` and `:match` choose only among the account's own shapes and the platform account's.
    """

    name: str = output_only("")
    create_time: Timestamp | None = output_only()
    snapshot: DeploymentShape | None = output_only(description="The whole shape as it was; it never changes.")
    validated: bool = Field(
        default=False, description="Deployments may name it without `skipShapeValidation`."
    )
    public: bool = Field(default=False, description="Other accounts may read it. Its base model is public.")
    latest_validated: bool = output_only(
        False, description="The newest validated version; the one that the shape's own name stands for."
    )


class CreateDeploymentRequest(ApiModel):
    """What `POST …/deployments` takes, as one message."""

    parent: str
    deployment: Deployment
    deployment_id: str = ""
    disable_auto_deploy: bool = False
    disable_speculative_decoding: bool = False
    validate_only: bool = False
    skip_shape_validation: bool = Field(default=False, description="Consider versions not validated too.")
    skip_image_tag_validation: bool = False
    accept_shapeless_risk: bool = False


class MatchDeploymentShapeVersionsRequest(ApiModel):
    create_deployment_request: CreateDeploymentRequest


def shape_message(row: DeploymentShapeRow) -> DeploymentShape:
    """A shape as its own account sees it."""
    return DeploymentShape(
        name=row.name,
        display_name=row.display_name,
        description=row.description,
        create_time=row.create_time,
        update_time=row.update_time,
        base_model=row.base_model,
        model_type=row.model_type,
        parameter_count=row.parameter_count,
        accelerator_count=row.accelerator_count,
        accelerator_type=row.accelerator_type,
        precision=row.precision,
        disable_deployment_size_validation=row.disable_deployment_size_validation,
        enable_addons=row.enable_addons,
        enable_session_affinity=row.enable_session_affinity,
        disable_speculative_decoding=row.disable_speculative_decoding,
        draft_token_count=row.draft_token_count,
        draft_model=row.draft_model,
        ngram_speculation_length=row.ngram_speculation_length,
        num_lora_device_cached=row.num_lora_device_cached,
        max_context_length=row.max_context_length,
        preset_type=row.preset_type,
    )


def snapshot_of(row: DeploymentShapeVersionRow) -> DeploymentShape:
    return DeploymentShape.model_validate(row.snapshot)


def version_message(row: DeploymentShapeVersionRow) -> DeploymentShapeVersion:
    return DeploymentShapeVersion(
        name=row.name,
        create_time=row.create_time,
        snapshot=snapshot_of(row),
        validated=row.validated,
        public=row.public,
        latest_validated=row.latest_validated,
    )
