from __future__ import annotations

from sqlalchemy import case, func

from controlplane.regions import UNSPECIFIED as REGION_UNSPECIFIED
from controlplane.resources.deployments.engine import ADDON_SLOTS
from controlplane.resources.deployments.enums import MULTI_REGIONS, PRECISIONS
from controlplane.resources.deployments.schemas import Deployment
from controlplane.resources.deployments.states import DELETED, TRANSITIONS
from controlplane.resources.tables import DeploymentRow, ModelRow
from controlplane.rest.filters.fields import (
    boolean,
    constant,
    enum,
    integer,
    message,
    related_name,
    resource_name,
    text,
    text_map,
    time,
    when,
)
from controlplane.rest.listing import Listing, resource_fields, state_fields

SLOTS = func.coalesce(func.nullif(DeploymentRow.num_lora_device_cached, 0), ADDON_SLOTS)
PLACEMENT = DeploymentRow.placement
IS_PLACED = PLACEMENT != {}
COUNTED = "it is counted when the deployment is shown; use state or desired_replica_count"

LISTING = Listing(
    key="deployments",
    message=Deployment,
    unique=DeploymentRow.uid,
    fields={
        **resource_fields(DeploymentRow, "deployments"),
        # An id is free again while its deleted deployment is still listed with showDeleted.
        "name": resource_name(DeploymentRow, "deployments", unique=False),
        **state_fields(DeploymentRow, tuple(TRANSITIONS)),
        "description": text(DeploymentRow.description),
        "annotations": text_map(DeploymentRow.annotations),
        "delete_time": time(DeploymentRow.delete_time),
        "purge_time": time(DeploymentRow.purge_time),
        "base_model": related_name(ModelRow, "models", DeploymentRow.base_model_uid),
        "min_replica_count": integer(DeploymentRow.min_replica_count),
        "max_replica_count": integer(DeploymentRow.max_replica_count),
        "desired_replica_count": integer(
            case((DeploymentRow.state == DELETED, 0), else_=DeploymentRow.desired_replica_count),
            nullable=False,
        ),
        "accelerator_count": integer(DeploymentRow.accelerator_count),
        # Which types there are is configuration, so any name is taken.
        "accelerator_type": enum(DeploymentRow.accelerator_type),
        "precision": enum(DeploymentRow.precision, PRECISIONS),
        "max_context_length": integer(DeploymentRow.max_context_length),
        "enable_addons": boolean(DeploymentRow.enable_addons),
        "ngram_speculation_length": integer(DeploymentRow.ngram_speculation_length),
        "draft_token_count": integer(DeploymentRow.draft_token_count),
        "draft_model": text(DeploymentRow.draft_model),
        "cluster": constant(""),
        "region": enum(
            func.coalesce(func.nullif(DeploymentRow.region, ""), REGION_UNSPECIFIED), nullable=False
        ),
        "placement": message(IS_PLACED),
        "placement.region": enum(
            when(IS_PLACED, func.coalesce(PLACEMENT["region"].astext, REGION_UNSPECIFIED))
        ),
        "placement.multi_region": enum(
            when(IS_PLACED, func.coalesce(PLACEMENT["multi_region"].astext, MULTI_REGIONS[0])), MULTI_REGIONS
        ),
        "num_peft_device_cached": integer(
            case((DeploymentRow.enable_addons, SLOTS), else_=0), nullable=False
        ),
        "max_peft_batch_size": integer(DeploymentRow.num_lora_device_cached),
        "auto_tune": message(DeploymentRow.long_prompt),
        "auto_tune.long_prompt": boolean(DeploymentRow.long_prompt),
        "direct_route_handle": constant(""),
        "disable_deployment_size_validation": boolean(DeploymentRow.disable_deployment_size_validation),
        "enable_session_affinity": boolean(DeploymentRow.enable_session_affinity),
        "deployment_shape": text(DeploymentRow.deployment_shape),
    },
    refused={
        "replica_count": COUNTED,
        "replica_stats": COUNTED,
        "autoscaling_policy": "it is shown with the deployment; lists cannot be filtered or ordered by it",
    },
    order="create_time",
)
