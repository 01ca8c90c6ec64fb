"""Notices at once when a trainer ends or a fleet changes on its cluster: neither waits for the next sweep."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from controlplane.queue import RECONCILE_DEPLOYMENT, RECONCILE_FINE_TUNING_JOB, enqueue
from controlplane.resources.deployments.states import CREATING, READY, UPDATING
from controlplane.resources.tables import DeploymentRow, FineTuningJobRow
from workers.context import WorkerContext
from workers.reconcile.fleets import CLUSTER_UNAVAILABLE
from workers.runtimes.base import FleetNews

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
    news = FleetNews()
    while not stopping.wait(LOOK_SECONDS):
        if context.fleets is not None:
            news |= context.fleets.take_news()
        try:
            told = tell_new_ends(context, told)
            tell_news(context, news)
            news = FleetNews()
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


def tell_news(context: WorkerContext, news: FleetNews) -> None:
    """Have the deployments looked at that the news are about."""
    if news != FleetNews():
        for uid in bring_forward(context, DeploymentRow, concerned(news)):
            enqueue(context.settings, RECONCILE_DEPLOYMENT, uid)


def concerned(news: FleetNews) -> ColumnElement[bool]:
    """Of an account one deployment, whose round sees to the namespace for all of them."""
    followed = DeploymentRow.state.in_((CREATING, READY, UPDATING))
    one_each = (
        select(DeploymentRow.uid)
        .where(DeploymentRow.account_id.in_(news.accounts), followed)
        .distinct(DeploymentRow.account_id)
        .order_by(DeploymentRow.account_id, DeploymentRow.uid)
    )
    named = DeploymentRow.uid.in_(map(uuid.UUID, news.deployments)) | DeploymentRow.uid.in_(one_each)
    return named | (DeploymentRow.reason == CLUSTER_UNAVAILABLE) if news.returned else named


def bring_forward(context: WorkerContext, table: Any, which: ColumnElement[bool]) -> Sequence[uuid.UUID]:
    """Have a look that is still to come be due now, and another one follow the one that goes on.

    Returns the rows that this is about. Rows that rest go on resting.
    """
    due = update(table).where(which, table.next_reconcile_at.is_not(None)).returning(table.uid)
    with context.db.session() as session:
        found = session.scalars(
            due.values(next_reconcile_at=func.now(), update_time=table.update_time),
            execution_options={"synchronize_session": False},
        )
        return found.all()
