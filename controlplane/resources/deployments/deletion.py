"""Deleting deployments: what keeps one, and what goes with it."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.db import now
from controlplane.errors import failed_precondition, not_found
from controlplane.names import ResourceName
from controlplane.resources.deployed_models import states as deployed
from controlplane.resources.deployments.metrics import usage_since
from controlplane.resources.deployments.schemas import deployment_message
from controlplane.resources.deployments.service import addons_of, models_on, shown
from controlplane.resources.deployments.states import DELETED, DELETING, LEAVING, mark
from controlplane.resources.tables import DeployedModelRow, DeploymentRow, ModelRow
from controlplane.rest.access import find
from controlplane.rest.etags import refuse_other_version

KEPT_AFTER_DELETE = timedelta(days=7)
IN_USE_WITHIN = timedelta(hours=1)
HOW_TO_GO_ON = "or set ignoreChecks"


async def delete_deployment(
    session: AsyncSession, name: ResourceName, *, hard: bool, ignore_checks: bool
) -> DeploymentRow:
    """Have a deployment stopped and deleted; `hard` leaves no trace of it.

    Its deployed models go with it. Addons that are still deployed on it keep it, and so does inference
    within the last hour, unless `ignore_checks`.
    """
    row = await find(session, DeploymentRow, name, lock=True)
    if row.state == DELETED and not hard:
        raise not_found(str(name))
    base = await session.get_one(ModelRow, row.base_model_uid)
    refuse_other_version(session, deployment_message(row, base, {}))
    if row.state not in LEAVING:
        models = await models_on(session, row)
        if not ignore_checks:
            refuse_losing_addons(row, models)
            await refuse_in_use(session, row)
        mark(row, DELETING, message="its replicas are being stopped")
        for model in models:
            if model.state != deployed.UNDEPLOYING:
                deployed.mark(model, deployed.UNDEPLOYING, message=f"{row.name} is being deleted")
    if hard:
        row.purge_time = now()
    row.next_reconcile_at = func.now()
    return row


def refuse_losing_addons(row: DeploymentRow, models: list[DeployedModelRow]) -> None:
    addons = addons_of(row, models)
    if addons:
        raise failed_precondition(
            f"cannot delete {row.name}: addons are deployed on it: {shown(addons)}; "
            f"undeploy them first, {HOW_TO_GO_ON}"
        )


async def refuse_in_use(session: AsyncSession, row: DeploymentRow) -> None:
    recent = await usage_since(session, row, now() - IN_USE_WITHIN)
    if recent.requests:
        times = "1 request" if recent.requests == 1 else f"{recent.requests} requests"
        raise failed_precondition(
            f"cannot delete {row.name}: it is in use, with {times} within the last hour; "
            f"wait until nobody needs it, {HOW_TO_GO_ON}"
        )
