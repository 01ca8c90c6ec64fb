"""What rounds over deployments have in common, wherever their replicas run: engines' settings, and rows."""

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
from controlplane.resources.deployed_models.states import mark as mark_model
from controlplane.resources.deployments.deletion import KEPT_AFTER_DELETE
from controlplane.resources.deployments.engine import ADDON_SLOTS, DRAFT_TOKENS
from controlplane.resources.deployments.planned import unsized_accelerators
from controlplane.resources.deployments.states import DELETED, Replica, mark, mark_replica
from controlplane.resources.tables import (
    DeployedModelRow,
    DeploymentRow,
    ReplicaAdapterRow,
    ReplicaRow,
)
from workers.context import WorkerContext
from workers.reconcile.deployed_models import Outcome, drop_models, engine_name, model_source, write_outcome
from workers.reconcile.deployment_plan import AddonMove, Step
from workers.reconcile.deployment_status import (
    NO_CAPACITY,
    describe_deployment,
    describe_model,
    next_look,
    undeployed,
)
from workers.reconcile.deployment_view import Rows, Status, load, view_of
from workers.reconcile.lease import Lease
from workers.reconcile.visit import AT_ONCE
from workers.runtimes.base import Engines, EngineUnreachable, ReplicaObservation, ReplicaSpec

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


def prove(engines: Engines, row: ReplicaRow, seen: ReplicaObservation) -> ReplicaObservation:
    """What is seen of a replica. Before it first serves it counts as healthy only if the base answers.

    An engine may say that it is healthy and end at its first request.
    """
    if seen.healthy and row.ready_time is None:
        try:
            engines.prove_base(str(row.uid))
        except EngineUnreachable as error:
            log.info("replica %s is up and does not answer: %s", row.uid, error)
            return replace(seen, healthy=False)
    return seen


def record_step(row: ReplicaRow, step: Step, moment: datetime) -> None:
    if step.state != row.state:
        log.info("replica %s: %s → %s %s", row.uid, row.state, step.state, step.message)
    mark_replica(row, step.state, moment, reason=step.reason, message=step.message)
    row.health_misses, row.unhealthy_since = step.health_misses, step.unhealthy_since
    if step.state == Replica.READY and row.ready_time is None:
        row.ready_time = moment


def note_addon(session: Session, rows: Rows, move: AddonMove) -> None:
    """That an addon is about to be loaded on a replica."""
    if session.get(ReplicaAdapterRow, (move.replica, move.deployed_model)) is None:
        _, model = rows.models[move.deployed_model]
        session.add(
            ReplicaAdapterRow(
                replica_uid=move.replica,
                deployed_model_uid=move.deployed_model,
                engine_name=engine_name(model),
            )
        )


def engine_of(settings: Settings, rows: Rows) -> ReplicaSpec:
    """What every engine of the deployment is to be; the replica's uid and address are still open."""
    deployment, base = rows.deployment, rows.base
    return ReplicaSpec(
        replica_uid="",
        served_name=deployment.uid.hex,
        model=model_source(base),
        host="",
        port=0,
        accelerator_count=unsized_accelerators(deployment),
        enable_adapters=deployment.enable_addons,
        max_lora_rank=settings.max_lora_rank,
        max_loras=deployment.num_lora_device_cached or ADDON_SLOTS,
        max_model_len=deployment.max_context_length or base.context_length or None,
        precision=deployment.precision,
        chat_template=(base.conversation_config or {}).get("template") or None,
        tool_parser=base.call_form.parser,
        kv_cache_gib=settings.engine_kv_cache_gib,
        task=base.task,
        ngram_length=deployment.ngram_speculation_length,
        draft_tokens=deployment.draft_token_count or DRAFT_TOKENS,
        long_prompt=deployment.long_prompt,
        draft=model_source(rows.draft) if rows.draft else None,
    )


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


def write_addons(session: Session, results: Results, moment: datetime) -> None:
    for move, outcome in results.loaded.items():
        write_outcome(_adapter(session, move), outcome, moment)
    for move in results.unloaded:
        session.delete(_adapter(session, move))


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


def _adapter(session: Session, move: AddonMove) -> ReplicaAdapterRow:
    return session.get_one(ReplicaAdapterRow, (move.replica, move.deployed_model))
