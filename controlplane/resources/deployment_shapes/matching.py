"""`deploymentShapeVersions:match`: what a deployment could be created with."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.errors import invalid
from controlplane.names import parse_name
from controlplane.regions import Regions
from controlplane.resources.deployment_shapes.choice import (
    DEFAULT,
    ShapeRules,
    fits,
    fitting_versions,
    named_version,
    stated,
)
from controlplane.resources.deployments.drafts import in_full
from controlplane.resources.deployments.placement import chosen_placement
from controlplane.resources.deployments.schemas import Deployment
from controlplane.resources.models.service import find_readable
from controlplane.resources.tables import DeploymentShapeVersionRow, ModelRow


async def matches(
    session: AsyncSession, caller: Caller, wanted: Deployment, rules: ShapeRules
) -> list[DeploymentShapeVersionRow]:
    """The versions that fit, the newest first; of the shape that the request names, when it names one."""
    given = wanted.given()
    base = await base_of(session, caller, given.get("base_model", ""))
    if base.state != "READY":
        return []
    rules = replace(rules, regions=Regions.of(chosen_placement(session, given.get("placement"))))
    settings, shape = in_full(stated(given), caller.account_id), given.get("deployment_shape", "")
    if shape in ("", DEFAULT):
        return await fitting_versions(session, caller, base, settings, rules)
    row = await named_version(session, caller, shape, rules)
    fitting = row.base_model_uid == base.uid and await fits(session, caller, row, base, settings, rules)
    return [row] if fitting else []


async def base_of(session: AsyncSession, caller: Caller, given: str) -> ModelRow:
    """The base model: the one that is named, or that the named one is an addon of."""
    if not given:
        raise invalid("baseModel is required", "createDeploymentRequest.deployment.baseModel")
    model = await find_readable(session, caller, parse_name(given, "models", caller.account_id, "baseModel"))
    return await session.get_one(ModelRow, model.base_model_uid) if model.base_model_uid else model
