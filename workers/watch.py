"""Notices at once when a trainer ends or a fleet changes on its cluster: neither waits for the next sweep."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, func, update
from sqlalchemy.exc import SQLAlchemyError

from controlplane.queue import RECONCILE_DEPLOYMENT, RECONCILE_FINE_TUNING_JOB, enqueue
from controlplane.resources.tables import DeploymentRow, FineTuningJobRow
from workers.context import WorkerContext

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1


def start_watch(open_context: Callable[[], WorkerContext]) -> threading.Event:
    """Watch from a thread until the event that is returned is set."""
    stopping = threading.Event()
    thread = threading.Thread(target=_watch, args=(open_context, stopping), name="watch", daemon=True)
    thread.start()
    return stopping


def _watch(open_context: Callable[[], WorkerContext], stopping: threading.Event) -> None:
    context = open_context()
    told: frozenset[tuple[str, int]] = frozenset()
    while not stopping.wait(LOOK_SECONDS):
        try:
            told = tell_new_ends(context, told)
            tell_changed_fleets(context)
        except (SQLAlchemyError, OSError) as error:
            log.warning("trainers that end and fleets that change are left to the sweep for now: %s", error)


def tell_new_ends(context: WorkerContext, told: frozenset[tuple[str, int]]) -> frozenset[tuple[str, int]]:
    """Have the jobs looked at whose trainers have ended since; returns all that have."""
    ended = context.trainers.ended_trainers()
    for job_uid, attempt in sorted(ended - told):
        wake(context, uuid.UUID(job_uid), attempt)
    return ended


def wake(context: WorkerContext, uid: uuid.UUID, attempt: int) -> None:
    current = (FineTuningJobRow.uid == uid) & (FineTuningJobRow.attempt == attempt)
    bring_forward(context, FineTuningJobRow, current)
    enqueue(context.settings, RECONCILE_FINE_TUNING_JOB, uid)


def tell_changed_fleets(context: WorkerContext) -> None:
    """Have the deployments looked at of which something has changed on their cluster."""
    if context.fleets is None:
        return
    for uid in sorted(map(uuid.UUID, context.fleets.take_changed())):
        bring_forward(context, DeploymentRow, DeploymentRow.uid == uid)
        enqueue(context.settings, RECONCILE_DEPLOYMENT, uid)


def bring_forward(context: WorkerContext, table: Any, which: ColumnElement[bool]) -> None:
    """Have a look that is still to come be due now. Rows that rest go on resting."""
    due = update(table).where(which, table.next_reconcile_at > func.now())
    with context.db.session() as session:
        session.execute(
            due.values(next_reconcile_at=func.now(), update_time=table.update_time),
            execution_options={"synchronize_session": False},
        )
