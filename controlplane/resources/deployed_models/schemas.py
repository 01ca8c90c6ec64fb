from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from controlplane.resources.deployed_models.states import STATES
from controlplane.resources.tables import DeployedModelRow
from controlplane.rest.schema import ApiModel, OneOf, Status, Timestamp, not_returned, output_only


class DeployedModel(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "serverless": "models are served by deployments; name one in deployment",
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    description: Annotated[str, Field(max_length=999)] = ""
    create_time: Timestamp | None = output_only()
    model: str = Field(default="", description="A READY model: its full name, or an own id.")
    deployment: str = Field(default="", description="The deployment to load it on: its full name or its id.")
    default: bool = Field(
        default=False,
        description="Requests that name the model and no deployment go here. The first one of a model is it.",
    )
    state: Annotated[str, OneOf(*STATES)] = output_only(STATES[0])
    serverless: bool = False
    status: Status | None = output_only()
    public: bool = False
    update_time: Timestamp | None = output_only()

    created_by: Any = not_returned()
    load_balancer_name: Any = not_returned()
    load_balancer_replica_capacity: Any = not_returned()
    is_load_balancer_sticky_session: Any = not_returned()


def deployed_model_message(row: DeployedModelRow, model: str, deployment: str) -> DeployedModel:
    """A deployed model as the API shows it, with the full names of its model and its deployment."""
    return DeployedModel(
        name=row.name,
        display_name=row.display_name,
        description=row.description,
        create_time=row.create_time,
        model=model,
        deployment=deployment,
        default=row.default,
        state=row.state,
        status=Status.of(row),
        public=row.public,
        update_time=row.update_time,
    )
