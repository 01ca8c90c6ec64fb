"""Making deployments true: engines started, watched and stopped, addons loaded on them and proven.

A round is load → observe → plan → record → execute → conclude. What an engine is to be is in the rows before
anything is done, and everything that is done can be done twice: a worker may die at any point, and the next
one goes on from the rows.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from datetime import timedelta
from functools import partial

from sqlalchemy import select

from controlplane.config import Settings
from controlplane.db import now
from controlplane.prices import Prices
from controlplane.resources.deployments.states import DELETED, FAILED, Replica, mark
from controlplane.resources.quotas.service import accelerators_a_replica
from controlplane.resources.tables import DeploymentRow, ReplicaRow
from workers.context import WorkerContext
from workers.metering import answers, is_metering_due, meter_replica
from workers.reconcile.deployed_models import load_addon, unload_addon
from workers.reconcile.deployment_plan import Plan, plan_deployment
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
from workers.reconcile.deployment_status import NO_CAPACITY, START_FAILED
from workers.reconcile.deployment_view import Rows, intent_of, live, load, view_of
from workers.reconcile.fleets import run_fleet_round, stop_stray_fleets
from workers.reconcile.lease import Lease
from workers.reconcile.visit import Superseded, visit
from workers.runtimes.base import NoCapacity, ReplicaObservation, ReplicaSpec, Runtime
from workers.runtimes.process import ProcessOver

log = logging.getLogger(__name__)

MOST_ROUNDS = 5
"""Of one deployment in a row, before others get their turn."""


def bring_on_deployment(context: WorkerContext, uid: uuid.UUID) -> None:
    """Rounds over a deployment, as long as another one was asked for while one went on."""
    for _ in range(MOST_ROUNDS):
        if not reconcile_deployment(context, uid):
            return


def reconcile_deployment(context: WorkerContext, uid: uuid.UUID) -> bool:
    """One round over a deployment. False when it is not due, or somebody else is at it."""
    fleets = context.fleets
    if fleets is None:
        return visit(context, DeploymentRow, uid, run_round, say_that_it_fails)
    return visit(context, DeploymentRow, uid, partial(run_fleet_round, fleets), say_that_it_fails)


def say_that_it_fails(row: DeploymentRow, cause: str) -> bool:
    """A deployment is never given up for a fault of the worker: its engines may be serving."""
    row.status_code, row.reason = "INTERNAL", "RECONCILE_FAILED"
    return False


def run_round(context: WorkerContext, lease: Lease) -> timedelta | None:
    with context.db.session() as session:
        rows = load(session, lease.uid)
    if rows.deployment.state == DELETED:
        return purge(context, lease)
    seen = {row.uid: observe(context.runtime, row) for row in live(rows)}
    plan = plan_deployment(view_of(rows, seen), now())
    if is_news(plan, rows):
        record(context, lease, rows, plan)
    results = execute(context, lease, plan) if is_work(plan) else Results()
    return conclude(context, lease, results)


def observe(runtime: Runtime, row: ReplicaRow) -> ReplicaObservation:
    return prove(runtime, row, runtime.observe_replica(str(row.uid)))


def is_news(plan: Plan, rows: Rows) -> bool:
    """Whether there is anything to record: an engine that runs on as before makes no writes."""
    counters = rows.deployment.consecutive_failures, rows.deployment.retry_at
    return bool(
        plan.add
        or plan.load
        or (plan.failures, plan.retry_at) != counters
        or any(step.is_change for step in plan.steps)
        or is_metering_due(rows.replicas, plan.steps, now())
    )


def is_work(plan: Plan) -> bool:
    steps = any(step.launch or step.stop or step.remove for step in plan.steps)
    return bool(steps or plan.add or plan.load or plan.unload)


def record(context: WorkerContext, lease: Lease, rows: Rows, plan: Plan) -> None:
    """Write what was seen and decided, before any of it is done."""
    moment = now()
    with context.db.session() as session:
        row: DeploymentRow = lease.guard(session)
        if intent_of(row) != rows.intent:
            raise Superseded
        row.consecutive_failures, row.retry_at = plan.failures, plan.retry_at
        if plan.give_up:
            failure = plan.give_up
            mark(row, FAILED, code=failure.code, reason=failure.reason, message=failure.message)
        for step in plan.steps:
            replica = session.get_one(ReplicaRow, step.replica.uid)
            record_step(replica, step, moment)
            prices = context.settings.prices or Prices()
            meter_replica(session, prices, row, rows.base, replica, moment, healthy=answers(step))
        for move in plan.load:
            note_addon(session, rows, move)
        session.add_all(new_replica(row) for _ in range(plan.add))


def new_replica(row: DeploymentRow) -> ReplicaRow:
    return ReplicaRow(
        uid=uuid.uuid4(),
        deployment_uid=row.uid,
        generation=row.generation,
        state=Replica.PENDING,
        message="its engine is about to be started",
        served_name=row.uid.hex,
        accelerator_type=row.accelerator_type,
        accelerator_count=accelerators_a_replica(row),
    )


def execute(context: WorkerContext, lease: Lease, plan: Plan) -> Results:
    """Do what the plan says, and start every replica whose row waits for an engine."""
    runtime, results = context.runtime, Results()
    with context.db.session() as session:
        lease.guard(session)
        rows = load(session, lease.uid)
    for step in plan.steps:
        if step.remove and runtime.remove_replica(str(step.replica.uid)):
            results.removed.add(step.replica.uid)
        elif step.stop or step.remove:
            runtime.stop_replica(str(step.replica.uid))
    for replica in rows.replicas:
        if replica.state == Replica.PENDING and replica.uid not in results.removed:
            launch(context, lease, rows, replica, results)
    silent = set()  # its other addons wait for the next round, instead of for one time-out each
    for move in plan.load:
        if move.replica not in silent:
            _, model = rows.models[move.deployed_model]
            outcome = results.loaded[move] = load_addon(runtime, move.replica, model)
            silent |= {move.replica} if outcome.code == "UNAVAILABLE" else set()
    for move in plan.unload:
        _, model = rows.models[move.deployed_model]
        if unload_addon(runtime, move.replica, model):
            results.unloaded.append(move)
    return results


def launch(context: WorkerContext, lease: Lease, rows: Rows, replica: ReplicaRow, results: Results) -> None:
    try:
        reserve_endpoint(context, lease, replica)
        context.runtime.start_replica(replica_spec(context.settings, rows, replica))
        results.started.add(replica.uid)
    except NoCapacity as error:
        results.waiting[replica.uid] = NO_CAPACITY, str(error)
    except OSError as error:
        results.waiting[replica.uid] = START_FAILED, f"the engine could not be started: {error}"
    except ProcessOver:
        log.info("replica %s has ended already; the next look will tell how", replica.uid)


def reserve_endpoint(context: WorkerContext, lease: Lease, replica: ReplicaRow) -> None:
    """Where the engine is to listen: in its row before it starts, so that every attempt says the same."""
    endpoint = None if replica.port else context.runtime.choose_endpoint()
    with context.db.session() as session:
        lease.guard(session)
        if endpoint is not None:
            row = session.get_one(ReplicaRow, replica.uid)
            row.host, row.port = replica.host, replica.port = endpoint.host, endpoint.port


def replica_spec(settings: Settings, rows: Rows, replica: ReplicaRow) -> ReplicaSpec:
    engine = engine_of(settings, rows)
    return replace(engine, replica_uid=str(replica.uid), host=replica.host, port=replica.port)


def conclude(context: WorkerContext, lease: Lease, results: Results) -> timedelta | None:
    """Write what came of the round, and what the deployment and its models say of themselves now."""
    moment = now()
    with context.db.session() as session:
        row: DeploymentRow = lease.guard(session)
        write_replicas(session, results, moment)
        write_addons(session, results, moment)
        return describe(session, row, moment)


def stop_strays(context: WorkerContext) -> None:
    """Stop engines that no row speaks of: a worker that had lost its lease may have left one behind.

    A row is written before its engine starts and deleted after it is gone, so reading them in this order
    never finds a stray where there is none.
    """
    if context.fleets is not None:
        stop_stray_fleets(context, context.fleets)
    found = context.runtime.list_replicas()
    if not found:
        return
    with context.db.session() as session:
        known = {
            str(uid)
            for uid in session.scalars(select(ReplicaRow.uid).where(ReplicaRow.state != Replica.FAILED))
        }
    for uid in sorted(found - known):
        log.warning("replica %s runs here and no row speaks of it: it is stopped", uid)
        if not context.runtime.remove_replica(uid):
            context.runtime.stop_replica(uid)
