"""The sweep: finds what is due, and what a lost message or a dead worker left behind."""

from __future__ import annotations

import logging
from datetime import timedelta

from redis.exceptions import RedisError
from sqlalchemy import delete, select, update

from controlplane.db import now
from controlplane.queue import (
    CONTROL_QUEUE,
    INSPECT_DATASET,
    QUEUE_OF,
    RECONCILE_DATASET,
    RECONCILE_DEPLOYMENT,
    RECONCILE_FINE_TUNING_JOB,
    RECONCILE_MODEL,
    enqueue,
)
from controlplane.resources.tables import (
    AuditLogRow,
    DatasetRow,
    DeploymentRow,
    FineTuningJobRow,
    GarbageRow,
    InspectionRow,
    ModelRow,
)
from controlplane.resources.uploads import URL_LIFETIME_SECONDS
from controlplane.storage import StorageError
from workers.autoscaling.loop import valkey_client
from workers.context import WorkerContext
from workers.metering import watch_spend
from workers.reconcile.deployments import stop_strays
from workers.reconcile.fine_tuning.places import give_places
from workers.reconcile.fine_tuning.strays import stop_stray_trainers
from workers.reconcile.lease import due_uids

log = logging.getLogger(__name__)

SWEPT = (
    (ModelRow, RECONCILE_MODEL),
    (DatasetRow, RECONCILE_DATASET),
    (FineTuningJobRow, RECONCILE_FINE_TUNING_JOB),
    (InspectionRow, INSPECT_DATASET),
    (DeploymentRow, RECONCILE_DEPLOYMENT),
)
HINTS_WAITING, HINTS_AT_LEAST = 200, 20
PREFIXES_A_SWEEP = 5
AUDIT_LOGS_A_SWEEP = 1000
KEPT_INSPECTIONS = timedelta(days=30)
RETRY_AFTER = timedelta(minutes=1)
KEPT_WATCH = timedelta(seconds=URL_LIFETIME_SECONDS) + timedelta(minutes=10)
"""How long after a delete somebody may still write where the resource was."""


def run_sweep(context: WorkerContext) -> None:
    """Send a hint for every row that is due, stop what no row speaks of, and empty what no row names."""
    for table, task in SWEPT:
        with context.db.session() as session:
            uids = due_uids(session, table, hints_to_send(context, task))
        for uid in uids:
            enqueue(context.settings, task, uid)
    give_places(context)
    stop_strays(context)
    stop_stray_trainers(context)
    watch_spend(context)
    collect_garbage(context)
    forget_old_audit_logs(context)
    forget_old_inspections(context)


def hints_to_send(context: WorkerContext, task: str) -> int:
    """Few while many wait to be taken: more would only keep what users have just asked for waiting."""
    queue = QUEUE_OF.get(task, CONTROL_QUEUE)
    try:
        waiting = int(str(valkey_client(context.settings.redis_url).llen(queue)))
    except (RedisError, OSError):
        waiting = 0
    return max(HINTS_WAITING - waiting, HINTS_AT_LEAST)


def collect_garbage(context: WorkerContext) -> None:
    """Delete the objects of deleted resources.

    A prefix is emptied at once, and forgotten only after it was emptied again when the last address to write
    there has expired: an upload, a copy or a trainer may have been at work when the resource was deleted.
    """
    moment = now()
    with context.db.session() as session:
        due = select(GarbageRow).where(GarbageRow.due_time <= moment).order_by(GarbageRow.due_time)
        rows = list(session.scalars(due.limit(PREFIXES_A_SWEEP)))
    for row in rows:
        done = empty(context, row.prefix)
        last_time = row.create_time + KEPT_WATCH
        with context.db.session() as session:
            if done and moment >= last_time:
                session.execute(delete(GarbageRow).where(GarbageRow.uid == row.uid))
            else:
                next_time = last_time if done else moment + RETRY_AFTER
                later = update(GarbageRow).where(GarbageRow.uid == row.uid)
                session.execute(later.values(due_time=next_time))


def abort_abandoned_uploads(context: WorkerContext) -> None:
    """Free what uploads in parts took that nobody finished: a client's, or those of one of us that died."""
    oldest = now() - timedelta(days=context.settings.upload_days)
    try:
        for upload in list(context.store.parts.unfinished()):
            if upload.started < oldest:
                context.store.parts.abort(upload.key, upload.upload_id)
                log.info("aborted an upload of %s that was begun on %s", upload.key, upload.started)
    except StorageError as error:
        log.warning("abandoned uploads stay for now: %s", error)


def forget_old_audit_logs(context: WorkerContext) -> None:
    """Delete what is older than it is kept, some at a time: the next sweep goes on."""
    oldest = now() - timedelta(days=context.settings.audit_log_days)
    old = select(AuditLogRow.uid).where(AuditLogRow.create_time < oldest).limit(AUDIT_LOGS_A_SWEEP)
    with context.db.session() as session:
        session.execute(delete(AuditLogRow).where(AuditLogRow.uid.in_(old)))


def forget_old_inspections(context: WorkerContext) -> None:
    """Reports that are asked for again are made again."""
    old = select(InspectionRow.uid).where(InspectionRow.create_time < now() - KEPT_INSPECTIONS).limit(100)
    with context.db.session() as session:
        session.execute(delete(InspectionRow).where(InspectionRow.uid.in_(old)))


def empty(context: WorkerContext, prefix: str) -> bool:
    """Whether nothing is left there. One prefix that cannot be emptied does not keep the others waiting."""
    try:
        count = context.store.delete_prefix(prefix)
        for upload in list(context.store.parts.unfinished(prefix)):
            context.store.parts.abort(upload.key, upload.upload_id)
    except (StorageError, ValueError) as error:
        log.warning("%s cannot be emptied now: %s", prefix, error)
        return False
    log.info("emptied %s of %d objects", prefix, count)
    return True
