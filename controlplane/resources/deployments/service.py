from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.db import now
from controlplane.errors import failed_precondition, invalid, not_found
from controlplane.names import ResourceName, check_id, generate_id, parse_name
from controlplane.resources.deployed_models import states as deployed
from controlplane.resources.deployed_models.service import add_deployed_model, lock_model
from controlplane.resources.deployments.accelerators import check_accelerators, local_devices
from controlplane.resources.deployments.schemas import (
    PRECISIONS,
    SERVED_PRECISIONS,
    Deployment,
    deployment_message,
)
from controlplane.resources.deployments.states import (
    CREATING,
    DELETED,
    DELETING,
    FAILED,
    LEAVING,
    READY,
    UPDATING,
    mark,
)
from controlplane.resources.models.service import find_readable
from controlplane.resources.models.states import HF_BASE_MODEL
from controlplane.resources.tables import DeployedModelRow, DeploymentRow, ModelRow, ReplicaRow
from controlplane.rest.access import find, insert
from controlplane.rest.masks import changes

KEPT_AFTER_DELETE = timedelta(days=7)
SHOWN_NAMES = 3

DESCRIBING = ("display_name", "description", "annotations")
# A running engine cannot take these: its replicas are replaced, one after the other.
OF_THE_ENGINE = ("enable_addons", "accelerator_type", "accelerator_count", "precision", "max_context_length")
LIMITS = {"min_replica_count", "max_replica_count"}


async def create_deployment(
    session: AsyncSession, caller: Caller, deployment_id: str, body: Deployment, *, deploy_base: bool
) -> tuple[DeploymentRow, ModelRow]:
    """A new deployment and its base model, which is deployed on it too unless `deploy_base` says no."""
    given = body.given()
    base = await find_base(session, caller, given.get("base_model", ""))
    row = DeploymentRow(
        account_id=caller.account_id,
        id=check_id(deployment_id or generate_id(), "deploymentId"),
        base_model_uid=base.uid,
        created_by=caller.email,
        **{field: given[field] for field in (*DESCRIBING, *OF_THE_ENGINE) if field in given},
    )
    set_replica_limits(row, given.get("min_replica_count", 0), given.get("max_replica_count"))
    row.desired_replica_count = initial_replicas(row)
    row.state, row.status_message = CREATING, "waiting for a worker to start it"
    row.next_reconcile_at = func.now()
    await insert(session, row, row.name)
    check_engine(row, base)
    if deploy_base:
        await add_deployed_model(session, row, base, caller, {})
    return row, base


async def find_base(session: AsyncSession, caller: Caller, given: str) -> ModelRow:
    """The base model that a deployment names: one that the caller may read, READY and of the right kind."""
    if not given:
        raise invalid("baseModel is required", "baseModel")
    name = parse_name(given, "models", caller.account_id, "baseModel")
    base = await lock_model(session, await find_readable(session, caller, name))
    if base.kind != HF_BASE_MODEL:
        raise invalid(
            f"{base.name} is an addon; deploy its base model with enableAddons and then the addon on it",
            "baseModel",
        )
    if base.state != READY:
        raise failed_precondition(
            f"{base.name} is {base.state}, not READY: {base.status_message or 'no files'}"
        )
    return base


def check_engine(row: DeploymentRow, base: ModelRow) -> None:
    """Refuse what no engine here could be started with."""
    check_accelerators(
        row.accelerator_type, row.accelerator_count, local_devices() if wants_accelerators(row) else []
    )
    if row.precision not in PRECISIONS:
        raise invalid(f"precision {row.precision!r} is none of {', '.join(PRECISIONS)}", "precision")
    if row.precision not in SERVED_PRECISIONS:
        raise invalid(f"precision {row.precision} is not supported yet; use BF16 or FP16", "precision")
    longest = base.context_length or base.facts.get("context_length") or row.max_context_length
    if row.max_context_length > longest:
        raise invalid(
            f"maxContextLength {row.max_context_length} is more than the model's own {longest}",
            "maxContextLength",
        )
    if row.enable_addons and base.facts.get("supports_lora") is False:
        raise invalid(f"the engine serves no addons on {base.name}", "enableAddons")


def wants_accelerators(row: DeploymentRow) -> bool:
    return row.accelerator_count > 0 or row.accelerator_type != "ACCELERATOR_TYPE_UNSPECIFIED"


def set_replica_limits(row: DeploymentRow, least: int, most: int | None) -> None:
    row.min_replica_count = least
    row.max_replica_count = max(least, 1) if most is None else most
    if row.min_replica_count > row.max_replica_count:
        raise invalid(
            f"minReplicaCount {row.min_replica_count} is more than maxReplicaCount {row.max_replica_count}",
            "minReplicaCount",
        )


def initial_replicas(row: DeploymentRow) -> int:
    return max(row.min_replica_count, 1) if row.max_replica_count else 0


async def find_live(session: AsyncSession, name: ResourceName) -> DeploymentRow:
    """The deployment, locked; 404 when it is deleted, 400 while it is being deleted."""
    row = await find(session, DeploymentRow, name, lock=True)
    if row.state == DELETED:
        raise not_found(str(name))
    if row.state == DELETING:
        raise failed_precondition(f"{row.name} is being deleted")
    return row


async def update_deployment(
    session: AsyncSession, name: ResourceName, body: Deployment, mask: str
) -> tuple[DeploymentRow, ModelRow]:
    row = await find_live(session, name)
    base = await session.get_one(ModelRow, row.base_model_uid)
    changed = changes(session, body, mask, deployment_message(row, base, {}))
    refuse_another_base(row, base, changed)
    for field in DESCRIBING:
        setattr(row, field, changed.get(field, getattr(row, field)))
    steering = {*OF_THE_ENGINE, *LIMITS}
    if changed.keys() & steering or (row.state == FAILED and body.model_fields_set & steering):
        await change_engine(session, row, base, changed)
        change_limits(row, changed)
        begin_anew(row)
    await session.flush()
    return row, base


def refuse_another_base(row: DeploymentRow, base: ModelRow, changed: dict[str, Any]) -> None:
    """The base may be named, as some clients do on every update, in either form of its name."""
    if "base_model" in changed:
        wanted = parse_name(changed["base_model"], "models", row.account_id, "baseModel")
        if str(wanted) != base.name:
            raise invalid(f"baseModel of a deployment cannot be changed; it is {base.name}", "baseModel")


async def change_engine(
    session: AsyncSession, row: DeploymentRow, base: ModelRow, changed: dict[str, Any]
) -> None:
    """New settings of the engines: their replicas are replaced."""
    fresh = {field: changed[field] for field in OF_THE_ENGINE if field in changed}
    if all(getattr(row, field) == value for field, value in fresh.items()):
        return
    for field, value in fresh.items():
        setattr(row, field, value)
    check_engine(row, base)
    addons = addons_of(row, await models_on(session, row))
    if addons and not row.enable_addons:
        raise failed_precondition(
            f"enableAddons of {row.name} cannot be cleared while addons are deployed on it: {shown(addons)}"
        )
    row.generation += 1


def change_limits(row: DeploymentRow, changed: dict[str, Any]) -> None:
    """New limits hold the number of replicas between them; a deployment that was shut opens again."""
    if not LIMITS & changed.keys():
        return
    was_shut = row.max_replica_count == 0
    most = changed.get("max_replica_count") if "max_replica_count" in changed else row.max_replica_count
    set_replica_limits(row, changed.get("min_replica_count", row.min_replica_count), most)
    kept = min(max(row.desired_replica_count, row.min_replica_count), row.max_replica_count)
    row.desired_replica_count = initial_replicas(row) if was_shut else kept


def begin_anew(row: DeploymentRow) -> None:
    """The user changed something: earlier failures are forgotten, and a worker looks at it now."""
    row.consecutive_failures, row.retry_at, row.lease_claims = 0, None, 0
    if row.state in (READY, FAILED):
        mark(row, UPDATING, message="waiting for a worker to look at the change")
    row.next_reconcile_at = func.now()


async def scale_deployment(session: AsyncSession, name: ResourceName, replicas: int) -> DeploymentRow:
    row = await find_live(session, name)
    if not row.min_replica_count <= replicas <= row.max_replica_count:
        raise invalid(
            f"replicaCount {replicas} is not between minReplicaCount {row.min_replica_count} "
            f"and maxReplicaCount {row.max_replica_count}",
            "replicaCount",
        )
    row.desired_replica_count = replicas
    begin_anew(row)
    return row


async def delete_deployment(
    session: AsyncSession, name: ResourceName, *, hard: bool, ignore_checks: bool
) -> DeploymentRow:
    """Have a deployment stopped and deleted; `hard` leaves no trace of it.

    Its deployed models go with it. Addons that are still deployed on it keep it, unless `ignore_checks`.
    """
    row = await find(session, DeploymentRow, name, lock=True)
    if row.state == DELETED and not hard:
        raise not_found(str(name))
    if row.state not in LEAVING:
        models = await models_on(session, row)
        if not ignore_checks:
            refuse_losing_addons(row, models)
        mark(row, DELETING, message="its replicas are being stopped")
        for model in models:
            if model.state != deployed.UNDEPLOYING:
                deployed.mark(model, deployed.UNDEPLOYING, message=f"{row.name} is being deleted")
    if hard:
        row.purge_time = now()
    row.next_reconcile_at = func.now()
    return row


async def models_on(session: AsyncSession, row: DeploymentRow) -> list[DeployedModelRow]:
    query = select(DeployedModelRow).where(DeployedModelRow.deployment_uid == row.uid)
    return list(await session.scalars(query.order_by(DeployedModelRow.id).with_for_update()))


def refuse_losing_addons(row: DeploymentRow, models: list[DeployedModelRow]) -> None:
    addons = addons_of(row, models)
    if addons:
        raise failed_precondition(
            f"cannot delete {row.name}: addons are deployed on it: {shown(addons)}; "
            "undeploy them first, or set ignoreChecks"
        )


def addons_of(row: DeploymentRow, models: list[DeployedModelRow]) -> list[DeployedModelRow]:
    """Those that are to stay on the deployment, besides its base."""
    return [
        model
        for model in models
        if model.model_uid != row.base_model_uid and model.state != deployed.UNDEPLOYING
    ]


def shown(models: list[DeployedModelRow]) -> str:
    more = " and others" if len(models) > SHOWN_NAMES else ""
    return ", ".join(model.name for model in models[:SHOWN_NAMES]) + more


async def replica_counts(
    session: AsyncSession, deployment_uids: list[uuid.UUID]
) -> dict[uuid.UUID, dict[str, int]]:
    """The replicas of these deployments, counted by state."""
    query = (
        select(ReplicaRow.deployment_uid, ReplicaRow.state, func.count())
        .where(ReplicaRow.deployment_uid.in_(deployment_uids))
        .group_by(ReplicaRow.deployment_uid, ReplicaRow.state)
    )
    counts: dict[uuid.UUID, dict[str, int]] = defaultdict(dict)
    for deployment_uid, state, count in await session.execute(query):
        counts[deployment_uid][state] = count
    return counts


async def base_models(session: AsyncSession, rows: list[DeploymentRow]) -> dict[uuid.UUID, ModelRow]:
    uids = {row.base_model_uid for row in rows}
    return {row.uid: row for row in await session.scalars(select(ModelRow).where(ModelRow.uid.in_(uids)))}
