from __future__ import annotations

from controlplane.resources.deployed_models.schemas import DeployedModel
from controlplane.resources.deployed_models.states import TRANSITIONS
from controlplane.resources.tables import DeployedModelRow, DeploymentRow, ModelRow
from controlplane.rest.filters.fields import boolean, related_name, text
from controlplane.rest.listing import Listing, resource_fields, state_fields

LISTING = Listing(
    key="deployedModels",
    message=DeployedModel,
    unique=DeployedModelRow.uid,
    fields={
        **resource_fields(DeployedModelRow, "deployedModels"),
        **state_fields(DeployedModelRow, tuple(TRANSITIONS)),
        "description": text(DeployedModelRow.description),
        "model": related_name(ModelRow, "models", DeployedModelRow.model_uid),
        "deployment": related_name(DeploymentRow, "deployments", DeployedModelRow.deployment_uid),
        "default": boolean(DeployedModelRow.default),
        "public": boolean(DeployedModelRow.public),
    },
)
