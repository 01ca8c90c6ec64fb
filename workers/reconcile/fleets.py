"""Making deployments true whose replicas a cluster keeps: declared, followed, their addons loaded and proven.

A round is load → observe → plan → record → execute → conclude, as for those of which Hearth starts each
replica. A cluster that cannot be asked changes nothing: what it runs goes on, and the next round tries again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.config import Settings
from controlplane.db import now
from controlplane.prices import Prices
from controlplane.regions import Regions
from controlplane.resources.deployed_models.states import DEPLOYED
from controlplane.resources.deployments.states import (
    DELETED,
    DELETING,
    FAILED,
    LEAVING,
    READY,
    Replica,
    mark,
)
from controlplane.resources.tables import DeploymentRow, ReplicaRow
from workers.context import WorkerContext
from workers.metering import PERIOD, answers, is_metering_due, meter_replica
from workers.reconcile.deployed_models import load_addon, unload_addon
from workers.reconcile.deployment_rows import (
    Results,
    describe,
    engine_of,
    note_addon,
    prove,
    purge,
    record_step,
    write_addons,
    write_replicas,
)
from workers.reconcile.deployment_status import STEADY_POLL
from workers.reconcile.deployment_view import Rows, intent_of, live, load, view_of
from workers.reconcile.fleet_plan import FleetPlan, first_state, plan_fleet, wanted_replicas
from workers.reconcile.lease import Lease
from workers.reconcile.visit import Superseded
from workers.runtimes.base import (
    EngineFailure,
    FleetObservation,
    FleetRefused,
    Fleets,
    FleetSpec,
    ProcessState,
    ReplicaObservation,
    RuntimeUnavailable,
)

log = logging.getLogger(__name__)

UNAVAILABLE_POLL = timedelta(seconds=5)
STILL_UNAVAILABLE_POLL = timedelta(seconds=30)
"""Of one that has said so already: all are looked at when the cluster is seen again."""
LEAVING_POLL = timedelta(seconds=1)
SETTLED_POLL = timedelta(minutes=5)
"""The cluster tells what changes on it; this is for what it did not tell."""
CLUSTER_UNAVAILABLE = "CLUSTER_UNAVAILABLE"


@dataclass(frozen=True)
class Look:
    """A deployment and its fleet, as one round sees them."""

    rows: Rows
    spec: FleetSpec
    fleet: FleetObservation
    seen: Mapping[uuid.UUID, ReplicaObservation]
    refused: EngineFailure | None = None


def run_fleet_round(fleets: Fleets, context: WorkerContext, lease: Lease) -> timedelta | None:
    with context.db.session() as session:
        rows = load(session, lease.uid)
    if rows.deployment.state == DELETED:
        return purge(context, lease)
    try:
        look = look_at(context.settings, fleets, rows)
        plan = plan_fleet(view_of(rows, look.seen), look.seen, now(), look.refused)
        if is_news(plan, look):
            record(context, lease, look, plan)
        elif is_as_before(plan, look):
            return rest_of(rows, now())
        results = execute(context, fleets, lease, look, plan)
    except FleetRefused as error:
        return give_up_refused(context, fleets, lease, error)
    except RuntimeUnavailable as error:
        return say_unavailable(context, lease, str(error))
    return conclude(context, lease, look, results)


def is_as_before(plan: FleetPlan, look: Look) -> bool:
    """Whether there is nothing to do and nothing to say that the rows do not say already."""
    rows = look.rows
    return (
        look.fleet.settled
        and look.fleet.region == rows.deployment.region
        and not (look.refused or look.fleet.message or rows.deployment.reason)
        and not (plan.serving or plan.unload or any(step.remove for step in plan.steps))
        and is_at_rest(rows, look)
        and len(live(rows)) == plan.replicas == look.spec.replicas
        and all(replica.generation == rows.deployment.generation for replica in live(rows))
        and all(replica.state == Replica.READY for replica in live(rows))
        and all(deployed.state == DEPLOYED for deployed, _ in rows.models.values())
    )


def look_at(settings: Settings, fleets: Fleets, rows: Rows) -> Look:
    """Raises RuntimeUnavailable."""
    spec = fleet_spec(settings, rows)
    refused = None
    try:
        leaving = rows.deployment.state in LEAVING
        fleet = fleets.remains(spec.deployment_uid) if leaving else fleets.observe(spec)
    except FleetRefused as error:
        refused = EngineFailure(error.code, error.reason, error.message)
        fleet = fleets.remains(spec.deployment_uid)
    seen = {uuid.UUID(uid): each for uid, each in fleet.replicas.items()}
    for row in live(rows):
        found = seen.get(row.uid, ReplicaObservation(ProcessState.ABSENT))
        seen[row.uid] = prove(fleets, row, found)
    return Look(rows, spec, fleet, seen, refused)


def fleet_spec(settings: Settings, rows: Rows) -> FleetSpec:
    deployment = rows.deployment
    return FleetSpec(
        deployment_uid=str(deployment.uid),
        deployment_name=deployment.name,
        account_id=deployment.account_id,
        generation=deployment.generation,
        replicas=wanted_replicas(view_of(rows)),
        engine=engine_of(settings, rows),
        accelerator_type=deployment.accelerator_type,
        accelerator_count=deployment.accelerator_count,
        model_config=rows.base.facts.get("config") or {},
        check_size=not deployment.disable_deployment_size_validation,
        regions=Regions.of(deployment.placement),
        draft_config=(rows.draft.facts.get("config") or {}) if rows.draft else {},
    )


def is_news(plan: FleetPlan, look: Look) -> bool:
    """Whether there is anything to record."""
    row = look.rows.deployment
    return bool(
        plan.appeared
        or plan.load
        or plan.give_up
        or (plan.failures, plan.retry_at) != (row.consecutive_failures, row.retry_at)
        or any(step.is_change for step in plan.steps)
        or any(_has_moved(replica, look) for replica in live(look.rows))
        or is_metering_due(look.rows.replicas, plan.steps, now())
    )


def _has_moved(row: ReplicaRow, look: Look) -> bool:
    endpoint = look.seen[row.uid].endpoint
    return endpoint is not None and (endpoint.host, endpoint.port) != (row.host, row.port)


def record(context: WorkerContext, lease: Lease, look: Look, plan: FleetPlan) -> None:
    """Write what was seen and decided, before any of it is done."""
    moment, prices = now(), context.settings.prices or Prices()
    with context.db.session() as session:
        row: DeploymentRow = lease.guard(session)
        if intent_of(row) != look.rows.intent:
            raise Superseded
        row.consecutive_failures, row.retry_at = plan.failures, plan.retry_at
        if failure := plan.give_up:
            mark(row, FAILED, code=failure.code, reason=failure.reason, message=failure.message)
        session.add_all(new_row(row, uid, seen, moment) for uid, seen in plan.appeared.items())
        for step in plan.steps:
            replica = session.get_one(ReplicaRow, step.replica.uid)
            record_step(replica, step, moment)
            write_place(replica, look.seen[replica.uid])
            meter_replica(session, prices, row, look.rows.base, replica, moment, healthy=answers(step))
        for move in plan.load:
            note_addon(session, look.rows, move)


def new_row(row: DeploymentRow, uid: uuid.UUID, seen: ReplicaObservation, moment: datetime) -> ReplicaRow:
    replica = ReplicaRow(
        uid=uid,
        deployment_uid=row.uid,
        generation=seen.generation,
        state=first_state(seen),
        state_time=moment,
        reason=seen.reason,
        message=seen.message,
        served_name=row.uid.hex,
        accelerator_type=row.accelerator_type,
    )
    write_place(replica, seen)
    return replica


def write_place(row: ReplicaRow, seen: ReplicaObservation) -> None:
    if seen.endpoint is not None:
        row.host, row.port = seen.endpoint.host, seen.endpoint.port
        row.accelerator_count = seen.accelerators


def execute(context: WorkerContext, fleets: Fleets, lease: Lease, look: Look, plan: FleetPlan) -> Results:
    """Declare what is wanted, tell the cluster who serves, and move addons."""
    results = Results()
    with context.db.session() as session:
        lease.guard(session)
    declare(fleets, look, plan)
    for step in plan.steps:
        if step.remove:
            fleets.clear(str(step.replica.uid))
            results.removed.add(step.replica.uid)
    for uid, serves in plan.serving.items():
        fleets.say_serving(str(uid), serves)
    for move in plan.load:
        _, model = look.rows.models[move.deployed_model]
        results.loaded[move] = load_addon(fleets, move.replica, model)
    for move in plan.unload:
        _, model = look.rows.models[move.deployed_model]
        if unload_addon(fleets, move.replica, model):
            results.unloaded.append(move)
    return results


def declare(fleets: Fleets, look: Look, plan: FleetPlan) -> None:
    uid = look.spec.deployment_uid
    if plan.give_up:
        fleets.note(uid, plan.give_up.reason, plan.give_up.message, warning=True)
    if look.rows.deployment.state == DELETING:
        fleets.remove(uid)
    elif look.refused:
        if plan.replicas == 0 and look.fleet.exists:
            fleets.remove(uid)
    elif not look.fleet.settled or plan.replicas != look.spec.replicas:
        fleets.declare(replace(look.spec, replicas=plan.replicas))


def conclude(context: WorkerContext, lease: Lease, look: Look, results: Results) -> timedelta | None:
    """Write what came of the round, and what the deployment and its models say of themselves now."""
    moment = now()
    with context.db.session() as session:
        row: DeploymentRow = lease.guard(session)
        write_replicas(session, results, moment)
        write_addons(session, results, moment)
        if row.state == DELETING and look.fleet.exists:
            mark(
                row, DELETING, message=look.fleet.message or "its objects are being removed from the cluster"
            )
            return LEAVING_POLL
        if not look.refused and row.state not in LEAVING:
            row.region = look.fleet.region
        wait = describe(session, row, moment)
        return say_what_is_missing(session, row, look, wait)


def say_what_is_missing(
    session: Session, row: DeploymentRow, look: Look, wait: timedelta | None
) -> timedelta | None:
    """What no replica can tell: a cluster that makes none, or that was not asked to."""
    if row.state in (FAILED, *LEAVING):
        return wait
    wait = wait or SETTLED_POLL
    if look.refused:
        mark(row, row.state, reason=look.refused.reason, message=look.refused.message)
        return UNAVAILABLE_POLL
    rows = load(session, row.uid)
    coming = [replica for replica in live(rows) if replica.state in Replica.SERVING_OR_COMING]
    if look.fleet.message and len(coming) < row.desired_replica_count:
        ready = sum(replica.state == Replica.READY for replica in coming)
        counted = f"{ready} of {row.desired_replica_count} replicas are ready; " if ready else ""
        mark(row, row.state, reason=look.fleet.reason, message=counted + look.fleet.message)
    if not look.fleet.settled:
        return min(wait, LEAVING_POLL)
    return rest_of(rows, now()) if wait >= STEADY_POLL and is_at_rest(rows, look) else wait


def is_at_rest(rows: Rows, look: Look) -> bool:
    """Whether nothing new is to be expected but from the cluster, which tells it."""
    return (
        rows.deployment.state == READY
        and all(look.seen[replica.uid].healthy for replica in live(rows))
        and all(adapter.proven_at is not None for adapter in rows.adapters)
    )


def rest_of(rows: Rows, moment: datetime) -> timedelta:
    """Until a replica's serving is to be metered again, or nobody has looked for long."""
    metered = [replica.serving_since + PERIOD for replica in live(rows) if replica.serving_since]
    return max(min([moment + SETTLED_POLL, *metered]) - moment, STEADY_POLL)


def give_up_refused(
    context: WorkerContext, fleets: Fleets, lease: Lease, error: FleetRefused
) -> timedelta | None:
    """The cluster wants nothing of what was declared: what serves goes on, and without any it has failed."""
    with context.db.session() as session:
        row: DeploymentRow = lease.guard(session)
        left = live(load(session, row.uid))
        serving = any(replica.state == Replica.READY for replica in left)
        if row.state != FAILED:
            state = row.state if serving else FAILED
            mark(row, state, code=error.code, reason=error.reason, message=error.message)
    if serving:
        return UNAVAILABLE_POLL
    try:
        fleets.remove(str(lease.uid))
    except RuntimeUnavailable as unavailable:
        log.warning("deployment %s: %s", lease.uid, unavailable)
    return UNAVAILABLE_POLL if left else None


def say_unavailable(context: WorkerContext, lease: Lease, why: str) -> timedelta:
    log.warning("deployment %s: %s", lease.uid, why)
    with context.db.session() as session:
        row: DeploymentRow = lease.guard(session)
        was_so = row.reason == CLUSTER_UNAVAILABLE
        # A deployment that has failed keeps its own reason; it is only still to be scaled to zero.
        if row.state != FAILED and (row.reason, row.status_message) != (CLUSTER_UNAVAILABLE, why):
            mark(row, row.state, reason=CLUSTER_UNAVAILABLE, message=why)
    return STILL_UNAVAILABLE_POLL if was_so else UNAVAILABLE_POLL


def stop_stray_fleets(context: WorkerContext, fleets: Fleets) -> None:
    """Remove fleets that no row speaks of any more."""
    try:
        found = {uuid.UUID(uid) for uid in fleets.known()}
        if not found:
            return
        kept = select(DeploymentRow.uid).where(DeploymentRow.uid.in_(found), DeploymentRow.state != DELETED)
        with context.db.session() as session:
            known = set(session.scalars(kept))
        for uid in sorted(found - known):
            log.warning("the cluster keeps a fleet for %s and no row speaks of it: it is removed", uid)
            fleets.remove(str(uid))
    except RuntimeUnavailable as error:
        log.warning("strays on the cluster stay for now: %s", error)
