"""The sweep: finds what is due, and what a lost message or a dead worker left behind."""

from __future__ import annotations

import logging

from sqlalchemy import delete, select

from controlplane.queue import (
    RECONCILE_DATASET,
    RECONCILE_DEPLOYMENT,
    RECONCILE_FINE_TUNING_JOB,
    RECONCILE_MODEL,
    enqueue,
)
from controlplane.resources.tables import DatasetRow, DeploymentRow, FineTuningJobRow, GarbageRow, ModelRow
from workers.context import WorkerContext
from workers.reconcile.deployments import stop_strays
from workers.reconcile.lease import due_uids

log = logging.getLogger(__name__)

SWEPT = (
    (ModelRow, RECONCILE_MODEL),
    (DatasetRow, RECONCILE_DATASET),
    (FineTuningJobRow, RECONCILE_FINE_TUNING_JOB),
    (DeploymentRow, RECONCILE_DEPLOYMENT),
)
ROWS_A_SWEEP = 500
PREFIXES_A_SWEEP = 5


def run_sweep(context: WorkerContext) -> None:
    """Send a hint for every row that is due, stop what no row speaks of, and empty what no row names."""
    for table, task in SWEPT:
        with context.db.session() as session:
            uids = due_uids(session, table, ROWS_A_SWEEP)
        for uid in uids:
            enqueue(context.settings, task, uid)
    stop_strays(context)
    collect_garbage(context)


def collect_garbage(context: WorkerContext) -> None:
    """Delete the objects of deleted resources. A prefix is forgotten only once it is empty."""
    with context.db.session() as session:
        rows = session.scalars(select(GarbageRow).order_by(GarbageRow.create_time).limit(PREFIXES_A_SWEEP))
        prefixes = [(row.uid, row.prefix) for row in rows]
    for uid, prefix in prefixes:
        context.store.delete_prefix(prefix)
        with context.db.session() as session:
            session.execute(delete(GarbageRow).where(GarbageRow.uid == uid))
        log.info("emptied %s", prefix)
