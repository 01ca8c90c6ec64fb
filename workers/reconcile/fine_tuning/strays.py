"""Trainers, and what is left of them, that no row speaks of: a worker that had lost its lease started one."""

from __future__ import annotations

import logging
import uuid

from sqlalchemy import func, select, update

from controlplane.resources.tables import FineTuningJobRow
from workers.context import WorkerContext
from workers.reconcile.fine_tuning.plan import AT_REST
from workers.reconcile.fine_tuning.trainer import END_GRACE_SECONDS, PAUSE_GRACE_SECONDS
from workers.runtimes.base import ProcessState, RuntimeUnavailable

log = logging.getLogger(__name__)


def stop_stray_trainers(context: WorkerContext) -> None:
    """Stop and remove the trainers of jobs that are gone or have another; have resting jobs tidied.

    A row is written before its trainer starts and deleted after that is gone, so reading them in this order
    never finds a stray where there is none.
    """
    if context.jobs is not None:
        stop_trainers_of_this_machine(context)
    try:
        stop_strays(context)
    except RuntimeUnavailable as error:
        log.warning("stray trainers on the cluster stay for now: %s", error)


def stop_trainers_of_this_machine(context: WorkerContext) -> None:
    """They are from before there was a cluster: their jobs go on there, from the checkpoints written now."""
    for job_uid, attempt in sorted(context.runtime.list_trainers()):
        if not context.runtime.remove_trainer(job_uid, attempt):
            context.runtime.stop_trainer(job_uid, attempt, PAUSE_GRACE_SECONDS)


def stop_strays(context: WorkerContext) -> None:
    found = context.trainers.list_trainers()
    if not found:
        return
    uids = {uuid.UUID(job_uid) for job_uid, _ in found}
    query = select(FineTuningJobRow).where(FineTuningJobRow.uid.in_(uids))
    with context.db.session() as session:
        rows = {str(row.uid): row for row in session.scalars(query)}
    for job_uid, attempt in sorted(found):
        row = rows.get(job_uid)
        if row is None or attempt != row.attempt:
            log.info("attempt %d of job %s is here and no row speaks of it", attempt, job_uid)
            if not context.trainers.remove_trainer(job_uid, attempt):
                context.trainers.stop_trainer(job_uid, attempt, END_GRACE_SECONDS)
        elif row.state in AT_REST and row.next_reconcile_at is None:
            wake_untidied(context, row)


def wake_untidied(context: WorkerContext, row: FineTuningJobRow) -> None:
    if context.trainers.observe_trainer(str(row.uid), row.attempt).state is ProcessState.ABSENT:
        return
    due = update(FineTuningJobRow).where(FineTuningJobRow.uid == row.uid, FineTuningJobRow.state == row.state)
    with context.db.session() as session:
        session.execute(
            due.values(next_reconcile_at=func.now(), update_time=FineTuningJobRow.update_time),
            execution_options={"synchronize_session": False},
        )
