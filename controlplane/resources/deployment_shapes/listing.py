from __future__ import annotations

from typing import Any

from sqlalchemy import DateTime, cast

from controlplane.resources.deployment_shapes.schemas import DeploymentShape, DeploymentShapeVersion
from controlplane.resources.deployments.accelerators import ACCELERATOR_TYPES, UNSPECIFIED
from controlplane.resources.deployments.enums import PRECISIONS, PRESET_TYPES
from controlplane.resources.tables import DeploymentShapeRow, DeploymentShapeVersionRow
from controlplane.rest.filters.fields import (
    Field,
    boolean,
    enum,
    integer,
    json_boolean,
    json_integer,
    json_text,
    name_of,
    text,
    time,
)
from controlplane.rest.listing import Listing, resource_fields

ACCELERATORS = (UNSPECIFIED, *ACCELERATOR_TYPES)
IN_A_SHAPE = ("accounts", DeploymentShapeVersionRow.account_id, "deploymentShapes")

OWN_SHAPES = Listing(
    key="deploymentShapes",
    message=DeploymentShape,
    unique=DeploymentShapeRow.uid,
    fields={
        **resource_fields(DeploymentShapeRow, "deploymentShapes"),
        "description": text(DeploymentShapeRow.description),
        "base_model": text(DeploymentShapeRow.base_model),
        "model_type": text(DeploymentShapeRow.model_type),
        "parameter_count": integer(DeploymentShapeRow.parameter_count),
        "accelerator_count": integer(DeploymentShapeRow.accelerator_count),
        "accelerator_type": enum(DeploymentShapeRow.accelerator_type, ACCELERATORS),
        "precision": enum(DeploymentShapeRow.precision, PRECISIONS),
        "disable_deployment_size_validation": boolean(DeploymentShapeRow.disable_deployment_size_validation),
        "enable_addons": boolean(DeploymentShapeRow.enable_addons),
        "enable_session_affinity": boolean(DeploymentShapeRow.enable_session_affinity),
        "disable_speculative_decoding": boolean(DeploymentShapeRow.disable_speculative_decoding),
        "max_context_length": integer(DeploymentShapeRow.max_context_length),
        "ngram_speculation_length": integer(DeploymentShapeRow.ngram_speculation_length),
        "draft_token_count": integer(DeploymentShapeRow.draft_token_count),
        "num_lora_device_cached": integer(DeploymentShapeRow.num_lora_device_cached),
        "draft_model": text(DeploymentShapeRow.draft_model),
        "preset_type": enum(DeploymentShapeRow.preset_type, PRESET_TYPES),
    },
    order="create_time",
)


def _snapshot_fields(place: str = "") -> dict[str, Field]:
    """The fields of a version's snapshot."""
    snapshot: Any = DeploymentShapeVersionRow.snapshot
    moment = DateTime(timezone=True)
    fields = {
        "name": name_of((*IN_A_SHAPE, DeploymentShapeVersionRow.shape_id), unique=False),
        "display_name": text(json_text(snapshot, "displayName"), nullable=False),
        "description": text(json_text(snapshot, "description"), nullable=False),
        "create_time": time(cast(snapshot["createTime"].astext, moment), nullable=False),
        "update_time": time(cast(snapshot["updateTime"].astext, moment), nullable=False),
        "base_model": text(json_text(snapshot, "baseModel"), nullable=False),
        "model_type": text(json_text(snapshot, "modelType"), nullable=False),
        "parameter_count": integer(json_integer(snapshot, "parameterCount"), nullable=False),
        "accelerator_count": integer(json_integer(snapshot, "acceleratorCount"), nullable=False),
        "accelerator_type": enum(json_text(snapshot, "acceleratorType"), ACCELERATORS, nullable=False),
        "precision": enum(json_text(snapshot, "precision"), PRECISIONS, nullable=False),
        "disable_deployment_size_validation": boolean(
            json_boolean(snapshot, "disableDeploymentSizeValidation"), nullable=False
        ),
        "enable_addons": boolean(json_boolean(snapshot, "enableAddons"), nullable=False),
        "enable_session_affinity": boolean(json_boolean(snapshot, "enableSessionAffinity"), nullable=False),
        "disable_speculative_decoding": boolean(
            json_boolean(snapshot, "disableSpeculativeDecoding"), nullable=False
        ),
        "max_context_length": integer(json_integer(snapshot, "maxContextLength"), nullable=False),
        "ngram_speculation_length": integer(json_integer(snapshot, "ngramSpeculationLength"), nullable=False),
        "draft_token_count": integer(json_integer(snapshot, "draftTokenCount"), nullable=False),
        "num_lora_device_cached": integer(json_integer(snapshot, "numLoraDeviceCached"), nullable=False),
        "draft_model": text(json_text(snapshot, "draftModel"), nullable=False),
        "preset_type": enum(json_text(snapshot, "presetType"), PRESET_TYPES, nullable=False),
    }
    return {place + path: field for path, field in fields.items()}


# What others may see of shapes is what is public of them: versions.
PUBLIC_SHAPES = Listing(
    key="deploymentShapes",
    message=DeploymentShape,
    unique=DeploymentShapeVersionRow.uid,
    fields=_snapshot_fields(),
    order="create_time",
)

VERSIONS = Listing(
    key="deploymentShapeVersions",
    message=DeploymentShapeVersion,
    unique=DeploymentShapeVersionRow.uid,
    fields={
        "name": name_of(
            (
                *IN_A_SHAPE,
                DeploymentShapeVersionRow.shape_id,
                "versions",
                DeploymentShapeVersionRow.id,
            ),
            unique=False,
        ),
        "create_time": time(DeploymentShapeVersionRow.create_time),
        "validated": boolean(DeploymentShapeVersionRow.validated),
        "public": boolean(DeploymentShapeVersionRow.public),
        "latest_validated": boolean(DeploymentShapeVersionRow.latest_validated),
        **_snapshot_fields("snapshot."),
    },
    order="create_time",
    search=("name", "snapshot.display_name", "snapshot.description"),
)
