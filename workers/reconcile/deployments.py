"""Making deployments true: engines started, watched and stopped, addons loaded on them and proven.

A round is load → observe → plan → record → execute → conclude. What an engine is to be is in the rows before
anything is done, and everything that is done can be done twice: a worker may die at any point, and the next
one goes on from the rows.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.config import Settings
from controlplane.db import now
from controlplane.prices import Prices
from controlplane.resources.deployed_models.states import mark as mark_model
from controlplane.resources.deployments.deletion import KEPT_AFTER_DELETE
from controlplane.resources.deployments.states import DELETED, FAILED, Replica, mark, mark_replica
from controlplane.resources.quotas.service import accelerators_a_replica
from controlplane.resources.tables import DeployedModelRow, DeploymentRow, ReplicaAdapterRow, ReplicaRow
from workers.context import WorkerContext
from workers.metering import answers, is_metering_due, meter_replica
from workers.reconcile.deployed_models import (
    Outcome,
    drop_models,
    engine_name,
    load_addon,
    model_source,
    unload_addon,
    write_outcome,
)
from workers.reconcile.deployment_plan import AddonMove, Plan, Step, plan_deployment
from workers.reconcile.deployment_status import (
    NO_CAPACITY,
    START_FAILED,
    describe_deployment,
    describe_model,
    next_look,
    undeployed,
)
from workers.reconcile.deployment_view import Rows, Status, intent_of, live, load, view_of
from workers.reconcile.lease import Lease
from workers.reconcile.visit import AT_ONCE, Superseded, visit
from workers.runtimes.base import EngineUnreachable, NoCapacity, ReplicaObservation, ReplicaSpec, Runtime
from workers.runtimes.process import ProcessOver

log = logging.getLogger(__name__)

KEPT_FAILURES = 5


@dataclass
class Results:
    """What was done in a round, by replica; written at its end."""

    removed: set[uuid.UUID] = field(default_factory=set)
    started: set[uuid.UUID] = field(default_factory=set)
    waiting: dict[uuid.UUID, tuple[str, str]] = field(default_factory=dict)
    """(reason, message) of those that could not be started."""
    loaded: dict[AddonMove, Outcome] = field(default_factory=dict)
    unloaded: list[AddonMove] = field(default_factory=list)


def reconcile_deployment(context: WorkerContext, uid: uuid.UUID) -> None:
    """One round over a deployment, when it is due and nobody else is at it."""
    visit(context, DeploymentRow, uid, run_round, say_that_it_fails)


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
    """What is seen of a replica. Before it first serves it counts as healthy only if the base answers.

    An engine may say that it is healthy and end at its first request.
    """
    seen = runtime.observe_replica(str(row.uid))
    if seen.healthy and row.ready_time is None:
        try:
            runtime.prove_base(str(row.uid))
        except EngineUnreachable as error:
            log.info("replica %s is up and does not answer: %s", row.uid, error)
            return replace(seen, healthy=False)
    return seen


def is_news(plan: Plan, rows: Rows) -> bool:
    """Whether there is anything to record: an engine that runs on as before makes no writes."""
    counters = rows.deployment.consecutive_failures, rows.deployment.retry_at
    return bool(
        plan.add
        or plan.load
        or (plan.failures, plan.retry_at) != counters
        or any(_is_change(step) for step in plan.steps)
        or is_metering_due(rows.replicas, plan.steps, now())
    )


def is_work(plan: Plan) -> bool:
    steps = any(step.launch or step.stop or step.remove for step in plan.steps)
    return bool(steps or plan.add or plan.load or plan.unload)


def _is_change(step: Step) -> bool:
    was = step.replica
    return (step.state, step.reason, step.message, step.health_misses) != (
        was.state,
        was.reason,
        was.message,
        was.health_misses,
    )


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
            key = (move.replica, move.deployed_model)
            if session.get(ReplicaAdapterRow, key) is None:
                session.add(adapter_row(move, engine_name(rows.models[move.deployed_model][1])))
        session.add_all(new_replica(row) for _ in range(plan.add))


def record_step(row: ReplicaRow, step: Step, moment: datetime) -> None:
    if step.state != row.state:
        log.info("replica %s: %s → %s %s", row.uid, row.state, step.state, step.message)
    mark_replica(row, step.state, moment, reason=step.reason, message=step.message)
    row.health_misses, row.unhealthy_since = step.health_misses, step.unhealthy_since
    if step.state == Replica.READY and row.ready_time is None:
        row.ready_time = moment


def adapter_row(move: AddonMove, name: str) -> ReplicaAdapterRow:
    return ReplicaAdapterRow(
        replica_uid=move.replica, deployed_model_uid=move.deployed_model, engine_name=name
    )


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
    for move in plan.load:
        _, model = rows.models[move.deployed_model]
        results.loaded[move] = load_addon(runtime, move.replica, model)
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
    deployment, base = rows.deployment, rows.base
    return ReplicaSpec(
        replica_uid=str(replica.uid),
        served_name=replica.served_name,
        model=model_source(base),
        host=replica.host,
        port=replica.port,
        accelerator_count=deployment.accelerator_count or 1,
        enable_adapters=deployment.enable_addons,
        max_lora_rank=settings.max_lora_rank,
        max_model_len=deployment.max_context_length or base.context_length or None,
        precision=deployment.precision,
        chat_template=(base.conversation_config or {}).get("template") or None,
        tool_parser=base.call_form.parser,
        kv_cache_gib=settings.engine_kv_cache_gib,
    )


def conclude(context: WorkerContext, lease: Lease, results: Results) -> timedelta | None:
    """Write what came of the round, and what the deployment and its models say of themselves now."""
    moment = now()
    with context.db.session() as session:
        row: DeploymentRow = lease.guard(session)
        write_replicas(session, results, moment)
        for move, outcome in results.loaded.items():
            write_outcome(_adapter(session, move), outcome, moment)
        for move in results.unloaded:
            session.delete(_adapter(session, move))
        return describe(session, row, moment)


def write_replicas(session: Session, results: Results, moment: datetime) -> None:
    for uid in results.removed:
        end_replica(session, session.get_one(ReplicaRow, uid), moment)
    for uid in results.started:
        replica = session.get_one(ReplicaRow, uid)
        mark_replica(replica, Replica.STARTING, moment, message="the engine is starting: staging the weights")
    for uid, (reason, message) in results.waiting.items():
        replica = session.get_one(ReplicaRow, uid)
        mark_replica(replica, Replica.PENDING, moment, reason=reason, message=message)
        if reason == NO_CAPACITY:  # the port is not held meanwhile: another one is chosen next time
            replica.host, replica.port = "", 0


def end_replica(session: Session, row: ReplicaRow, moment: datetime) -> None:
    """Nothing of it runs any more: what failed is kept to tell why, anything else is forgotten."""
    if row.state != Replica.STOPPING or not row.reason:
        session.delete(row)
        return
    mark_replica(row, Replica.FAILED, row.state_time, reason=row.reason, message=row.message)
    row.end_time = moment
    session.execute(delete(ReplicaAdapterRow).where(ReplicaAdapterRow.replica_uid == row.uid))
    session.flush()
    forget_old_failures(session, row.deployment_uid)


def forget_old_failures(session: Session, deployment_uid: uuid.UUID) -> None:
    failed = session.scalars(
        select(ReplicaRow)
        .where(ReplicaRow.deployment_uid == deployment_uid, ReplicaRow.state == Replica.FAILED)
        .order_by(ReplicaRow.end_time.desc())
        .offset(KEPT_FAILURES)
    )
    for old in failed:
        session.delete(old)


def describe(session: Session, row: DeploymentRow, moment: datetime) -> timedelta | None:
    """Write the statuses; returns when to look again."""
    session.flush()
    rows = load(session, row.uid)
    if gone := undeployed(view_of(rows)):
        drop_models(session, [rows.models[uid][0] for uid in gone])
        rows = load(session, row.uid)
    view = view_of(rows)
    status = describe_deployment(view, moment)
    if status.state == DELETED:
        return finish_delete(session, row, rows, moment)
    mark(row, status.state, code=status.code, reason=status.reason, message=status.message)
    for model in view.models:
        write_model(rows.models, model.uid, describe_model(model, view, status))
    return next_look(view, status, moment)


def write_model(
    models: Mapping[uuid.UUID, tuple[DeployedModelRow, object]], uid: uuid.UUID, status: Status
) -> None:
    mark_model(models[uid][0], status.state, code=status.code, reason=status.reason, message=status.message)


def finish_delete(session: Session, row: DeploymentRow, rows: Rows, moment: datetime) -> timedelta:
    """Its engines are gone: its models vanish, and it is kept as DELETED for a while, unless deleted hard."""
    drop_models(session, [deployed for deployed, _ in rows.models.values()])
    session.execute(delete(ReplicaRow).where(ReplicaRow.deployment_uid == row.uid))
    mark(row, DELETED)
    row.delete_time = moment
    row.purge_time = row.purge_time or moment + KEPT_AFTER_DELETE
    return max(row.purge_time - moment, AT_ONCE)


def purge(context: WorkerContext, lease: Lease) -> timedelta | None:
    """Forget a deleted deployment when its time has come."""
    moment = now()
    with context.db.session() as session:
        row: DeploymentRow = lease.guard(session)
        if row.purge_time is None or row.purge_time > moment:
            return row.purge_time - moment if row.purge_time else None
        session.delete(row)
    return None


def stop_strays(context: WorkerContext) -> None:
    """Stop engines that no row speaks of: a worker that had lost its lease may have left one behind.

    A row is written before its engine starts and deleted after it is gone, so reading them in this order
    never finds a stray where there is none.
    """
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


def _adapter(session: Session, move: AddonMove) -> ReplicaAdapterRow:
    return session.get_one(ReplicaAdapterRow, (move.replica, move.deployed_model))
