from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import replace
from typing import Any

from pydantic.alias_generators import to_camel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.errors import ApiError, Code, failed_precondition, invalid, not_found
from controlplane.names import ResourceName, check_id, generate_id, parse_name
from controlplane.regions import Regions
from controlplane.resources.deployed_models import states as deployed
from controlplane.resources.deployed_models.service import add_deployed_model, lock_model
from controlplane.resources.deployment_shapes.choice import (
    DEFAULT,
    ShapeRules,
    choose_version,
    filled,
    named_version,
    refuse_leaving_shape,
    settings_of,
    stated,
)
from controlplane.resources.deployment_shapes.schemas import snapshot_of
from controlplane.resources.deployments.autoscaling import (
    AutoscalingPolicy,
    refuse_schedules_above,
    refuse_window_to_zero,
)
from controlplane.resources.deployments.drafts import (
    chosen_draft,
    draft_of,
    find_draft,
    find_unnamed_draft,
    in_full,
    with_default_draft,
)
from controlplane.resources.deployments.engine import (
    LEFT_OPEN,
    OF_THE_ENGINE,
    OTHER_FIELDS,
    SPECULATION,
    EngineSettings,
    check_engine,
    settings_in,
)
from controlplane.resources.deployments.placement import chosen_placement, refuse_another_place
from controlplane.resources.deployments.schemas import Deployment, deployment_message
from controlplane.resources.deployments.states import (
    CREATING,
    DELETED,
    DELETING,
    FAILED,
    READY,
    UPDATING,
    mark,
)
from controlplane.resources.models.service import find_readable
from controlplane.resources.models.states import BASE_KINDS
from controlplane.resources.quotas.service import Held, allow_growth
from controlplane.resources.quotas.spend import refuse_overspent
from controlplane.resources.tables import DeployedModelRow, DeploymentRow, ModelRow, ReplicaRow
from controlplane.rest.access import find, insert, refuse_others_rows
from controlplane.rest.masks import changes

SHOWN_NAMES = 3
WAITING = "waiting for a worker to start it"

DESCRIBING = (
    *("display_name", "description", "annotations"),
    *("disable_deployment_size_validation", "enable_session_affinity"),
)
"""What changes nothing of a running deployment. The settings of `OF_THE_ENGINE` replace its replicas."""
LIMITS = {"min_replica_count", "max_replica_count"}


async def create_deployment(
    session: AsyncSession,
    caller: Caller,
    deployment_id: str,
    body: Deployment,
    rules: ShapeRules,
    *,
    deploy_base: bool,
) -> tuple[DeploymentRow, ModelRow]:
    """A new deployment and its base model, which is deployed on it too unless `deploy_base` says no."""
    given = body.given()
    placement = chosen_placement(session, given.get("placement"))
    regions = Regions.of(placement)
    rules = replace(rules, regions=regions)
    base = await chosen_base(session, caller, given, rules)
    row = DeploymentRow(
        account_id=caller.account_id,
        id=check_id(deployment_id or generate_id(), "deploymentId"),
        base_model_uid=base.uid,
        created_by=caller.email,
        placement=placement,
        **{field: given[field] for field in DESCRIBING if field in given}
        | await chosen_settings(session, caller, base, given, rules),
    )
    set_replica_limits(row, given.get("min_replica_count", 0), given.get("max_replica_count"))
    refuse_window_to_zero(session, given.get("autoscaling_policy"))
    set_policy(row, given.get("autoscaling_policy"))
    row.desired_replica_count = initial_replicas(row)
    row.state, row.status_message = CREATING, WAITING
    row.next_reconcile_at = func.now()
    draft = await chosen_draft(session, row, base, given)
    await allow_growth(session, row, base, draft)
    await insert(session, row, row.name)
    check_engine(session, row, base, regions)
    if deploy_base:
        await add_deployed_model(session, row, base, caller, {})
    return row, base


async def chosen_base(
    session: AsyncSession, caller: Caller, given: dict[str, Any], rules: ShapeRules
) -> ModelRow:
    """The base model that the request names, or else the shape that it names."""
    name, shape = given.get("base_model", ""), given.get("deployment_shape", "")
    if shape and rules.risk_accepted:
        raise invalid(
            f"acceptShapelessRisk and deploymentShape {shape!r} exclude each other", "deploymentShape"
        )
    if not name and shape not in ("", DEFAULT):
        name = (await named_version(session, caller, shape, rules)).snapshot["baseModel"]
    return await find_base(session, caller, name)


async def chosen_settings(
    session: AsyncSession, caller: Caller, base: ModelRow, given: dict[str, Any], rules: ShapeRules
) -> dict[str, Any]:
    """The engine's settings, and what else shapes say: the request's, or the shape's where that is silent."""
    wanted = in_full(stated(given), caller.account_id)
    if rules.without_speculation:
        refuse_speculation(wanted)
    if not given.get("deployment_shape"):
        settings = {**LEFT_OPEN, **wanted}
        return settings if rules.without_speculation else with_default_draft(settings, base)
    version = await choose_version(session, caller, given["deployment_shape"], base, wanted, rules)
    settings = filled(settings_of(version), wanted)
    if rules.without_speculation:
        settings |= {field: LEFT_OPEN[field] for field in SPECULATION}
    elif not snapshot_of(version).disable_speculative_decoding:
        settings = with_default_draft(settings, base)
    if snapshot_of(version).enable_session_affinity:
        settings["enable_session_affinity"] = True
    return {**settings, "deployment_shape": version.name}


def refuse_speculation(wanted: dict[str, Any]) -> None:
    for field in (to_camel(field) for field in SPECULATION if field in wanted):
        raise invalid(f"disableSpeculativeDecoding and {field} exclude each other", field)


async def find_base(session: AsyncSession, caller: Caller, given: str) -> ModelRow:
    """The base model that a deployment names: one that the caller may read, READY and of the right kind."""
    if not given:
        raise invalid("baseModel is required", "baseModel")
    name = parse_name(given, "models", caller.account_id, "baseModel")
    base = await lock_model(session, await find_readable(session, caller, name, keep=True))
    if base.kind not in BASE_KINDS:
        raise invalid(
            f"{base.name} is an addon; deploy its base model with enableAddons and then the addon on it",
            "baseModel",
        )
    if base.state != READY:
        raise failed_precondition(
            f"{base.name} is {base.state}, not READY: {base.status_message or 'no files'}"
        )
    return base


def set_replica_limits(row: DeploymentRow, least: int, most: int | None) -> None:
    row.min_replica_count = least
    row.max_replica_count = max(least, 1) if most is None else most
    if row.min_replica_count > row.max_replica_count:
        raise invalid(
            f"minReplicaCount {row.min_replica_count} is more than maxReplicaCount {row.max_replica_count}",
            "minReplicaCount",
        )


def set_policy(row: DeploymentRow, policy: AutoscalingPolicy | None) -> None:
    refuse_schedules_above(policy, row.max_replica_count)
    row.autoscaling_policy = policy.stored() if policy else {}


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
    session: AsyncSession, caller: Caller, name: ResourceName, body: Deployment, mask: str, rules: ShapeRules
) -> tuple[DeploymentRow, ModelRow]:
    row = await find_live(session, name)
    base = await session.get_one(ModelRow, row.base_model_uid)
    held = Held.by(session, row, base, await draft_of(session, row))
    changed = in_full(changes(session, body, mask, deployment_message(row, base, {})), row.account_id)
    changed |= {field: value for field, value in settings_in(changed).items() if value != getattr(row, field)}
    refuse_another_base(row, base, changed)
    refuse_another_place(row, changed)
    rules = replace(rules, regions=Regions.of(row.placement))
    for field in DESCRIBING:
        setattr(row, field, changed.get(field, getattr(row, field)))
    changed |= await reshaped(session, caller, row, base, changed, rules)
    restarting = {*OF_THE_ENGINE, *LIMITS}
    if changed.keys() & restarting or (
        row.state == FAILED and body.model_fields_set & (restarting | OTHER_FIELDS)
    ):
        await change_engine(session, row, base, changed)
        change_limits(row, changed)
        await allow_growth(session, row, base, await draft_of(session, row), held)
        begin_anew(row)
    before = AutoscalingPolicy.of(row.autoscaling_policy)
    policy = changed.get("autoscaling_policy", before)
    refuse_window_to_zero(session, policy, before)
    set_policy(row, policy)
    await session.flush()
    return row, base


async def reshaped(
    session: AsyncSession,
    caller: Caller,
    row: DeploymentRow,
    base: ModelRow,
    changed: dict[str, Any],
    rules: ShapeRules,
) -> dict[str, Any]:
    """What another shape changes of the engine. Without another one, what the present one says is kept to."""
    wanted = {field: changed[field] for field in OF_THE_ENGINE if field in changed}
    if "deployment_shape" not in changed:
        if wanted and row.deployment_shape and not rules.skip_validation:
            await refuse_leaving_shape(session, row.deployment_shape, wanted)
        return {}
    if not changed["deployment_shape"]:
        row.deployment_shape = ""
        return {}
    version = await choose_version(session, caller, changed["deployment_shape"], base, wanted, rules)
    row.deployment_shape = version.name
    if "enable_session_affinity" not in changed:
        row.enable_session_affinity |= snapshot_of(version).enable_session_affinity
    settings = filled(settings_of(version), wanted, vars(EngineSettings.of(row)))
    return {field: value for field, value in settings.items() if value != getattr(row, field)}


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
    check_engine(session, row, base, Regions.of(row.placement))
    draft = await find_draft(session, row.account_id, row, base)
    row.draft_model_uid = draft.uid if draft else None
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
    if replicas > row.desired_replica_count:
        await refuse_overspent(session, row.account_id)
    row.desired_replica_count = replicas
    begin_anew(row)
    return row


async def undelete_deployment(
    session: AsyncSession, caller: Caller, name: ResourceName
) -> tuple[DeploymentRow, ModelRow]:
    """Bring a deleted deployment back, with as many replicas as it wanted before.

    Its base model is deployed on it again. Addons that were deployed on it are not: load them anew.
    """
    row = await find_deleted(session, caller, name)
    base = await session.get_one(ModelRow, row.base_model_uid)
    base = await find_base(session, caller, base.name)
    check_engine(session, row, base, Regions.of(row.placement))
    whose, how = f"the draftModel of {row.name}", "create another deployment without it"
    draft = await find_unnamed_draft(session, row.account_id, row, base, whose=whose, how=how)
    row.draft_model_uid = draft.uid if draft else None
    await allow_growth(session, row, base, draft)
    mark(row, CREATING, message=WAITING)
    row.delete_time = row.purge_time = None
    row.consecutive_failures, row.retry_at, row.lease_claims = 0, None, 0
    row.next_reconcile_at = func.now()
    await insert(session, row, row.name)
    await add_deployed_model(session, row, base, caller, {})
    return row, base


async def find_deleted(session: AsyncSession, caller: Caller, name: ResourceName) -> DeploymentRow:
    """The deployment of this name that was deleted last, locked, if it can still be had."""
    of_the_name = select(DeploymentRow).where(
        DeploymentRow.account_id == name.account_id, DeploymentRow.id == name.id
    )
    deleted = (
        of_the_name.where(DeploymentRow.state == DELETED, DeploymentRow.purge_time > func.now())
        .order_by(DeploymentRow.delete_time.desc())
        .limit(1)
        .with_for_update()
    )
    row = await session.scalar(deleted)
    live = await session.scalar(of_the_name.where(DeploymentRow.state != DELETED))
    if live is not None and row is not None:
        raise ApiError(
            Code.ALREADY_EXISTS, f"{name} cannot be undeleted: another deployment has that name meanwhile"
        )
    if live is not None:
        raise failed_precondition(f"{name} is not deleted: it is {live.state}")
    if row is None:
        raise not_found(str(name))
    refuse_others_rows(caller, row, name)
    return row


async def models_on(session: AsyncSession, row: DeploymentRow) -> list[DeployedModelRow]:
    query = select(DeployedModelRow).where(DeployedModelRow.deployment_uid == row.uid)
    return list(await session.scalars(query.order_by(DeployedModelRow.id).with_for_update()))


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
