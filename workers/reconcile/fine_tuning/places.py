"""Giving away the free places for trainers, over the jobs of all accounts at once.

What it reads is bounded by indices on those that wait and those that run, and the statements are as many
for one job as for ten thousand.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, exists, func, select, text, update
from sqlalchemy.orm import Session

from controlplane.config import Settings
from controlplane.db import now
from controlplane.queue import RECONCILE_FINE_TUNING_JOB, enqueue
from controlplane.resources.fine_tuning_jobs.states import PENDING, RUNNING, mark
from controlplane.resources.quotas.catalog import RUNNING_JOBS, allowances
from controlplane.resources.quotas.limits import limit_for
from controlplane.resources.quotas.tables import QuotaRow
from controlplane.resources.tables import AccountRow, FineTuningJobRow
from workers.context import WorkerContext
from workers.reconcile.fine_tuning.queue import NEVER, Queue, Waiting, plan_places, reason_to_wait

# Whoever gives away places waits for the others on this lock, so that none is given away twice.
PLACES_LOCK = 0x48454153
NUMBERED = 100
"""So many waiting jobs of an account know their place in the queue; more would be written at every move."""

WAITS = FineTuningJobRow.state == PENDING


def give_places(context: WorkerContext) -> None:
    """Give free places to those whose turn it is, and tell the others why they wait."""
    with context.db.session() as session:
        if not session.scalar(select(exists().where(WAITS))):
            return
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": PLACES_LOCK})
        given = _give(session, context.settings)
    for uid in given:
        enqueue(context.settings, RECONCILE_FINE_TUNING_JOB, uid)


def _give(session: Session, settings: Settings) -> list[uuid.UUID]:
    moment = now()
    running = running_jobs(session)
    said, queues = read_queues(session, settings, running)
    given, left = plan_places(queues, settings.max_trainers - sum(running.values()), moment)
    place(session, given, moment)
    tell(session, left, said, settings.max_trainers)
    return given


def running_jobs(session: Session) -> dict[str, int]:
    """How many places each account has."""
    counted = select(FineTuningJobRow.account_id, func.count()).where(FineTuningJobRow.has_place())
    return dict(session.execute(counted.group_by(FineTuningJobRow.account_id)).tuples().all())


def read_queues(
    session: Session, settings: Settings, running: dict[str, int]
) -> tuple[dict[uuid.UUID, tuple[str, str]], list[Queue]]:
    """What the waiting jobs say of themselves, and the accounts' queues, as far as jobs are numbered."""
    said: dict[uuid.UUID, tuple[str, str]] = {}
    jobs: dict[str, list[Waiting]] = defaultdict(list)
    for account_id, uid, queue_time, reason, message in session.execute(_FIRST_IN_QUEUE):
        said[uid] = (reason, message)
        jobs[account_id].append(Waiting(uid, queue_time))
    allowance = allowances(settings.quotas)[RUNNING_JOBS]
    queues = []
    for account_id, last_place, quota in session.execute(_ACCOUNTS, {"accounts": list(jobs)}):
        most = limit_for(account_id, RUNNING_JOBS, allowance, quota).value
        waiting = tuple(jobs[account_id])
        queues.append(Queue(account_id, waiting, running.get(account_id, 0), most, last_place or NEVER))
    return said, queues


def place(session: Session, given: Sequence[uuid.UUID], moment: datetime) -> None:
    if not given:
        return
    # Who is being cancelled in this moment has left the queue: the place is given away the next time.
    found = select(FineTuningJobRow).where(FineTuningJobRow.uid.in_(given), WAITS)
    served = set()
    for row in session.scalars(found.with_for_update(skip_locked=True)):
        mark(row, RUNNING, reason="STARTING", message="starting its trainer")
        row.attempt += 1
        row.place_time = moment
        row.start_time = row.start_time or moment
        row.next_reconcile_at = moment
        served.add(row.account_id)
    session.flush()
    session.execute(_SERVE, {"served": sorted(served), "moment": moment})


def tell(
    session: Session, queues: Iterable[Queue], said: dict[uuid.UUID, tuple[str, str]], places: int
) -> None:
    """Write why each job waits, where that has changed."""
    news: list[dict[str, Any]] = []
    for queue in queues:
        for number, job in enumerate(queue.jobs, start=1):
            reason, message = reason_to_wait(queue, number, places, RUNNING_JOBS)
            if said[job.uid] != (reason, message):
                news.append({"waiting": job.uid, "why": reason, "told": message})
    if news:
        session.connection().execute(_TELL, news)


_NUMBER = func.row_number().over(
    partition_by=FineTuningJobRow.account_id, order_by=(FineTuningJobRow.queue_time, FineTuningJobRow.uid)
)
_NUMBERS = select(FineTuningJobRow.uid, _NUMBER.label("number")).where(WAITS).subquery()
_FIRST_IN_QUEUE = (
    select(
        FineTuningJobRow.account_id,
        FineTuningJobRow.uid,
        FineTuningJobRow.queue_time,
        FineTuningJobRow.reason,
        FineTuningJobRow.status_message,
    )
    .join(_NUMBERS, _NUMBERS.c.uid == FineTuningJobRow.uid)
    .where(_NUMBERS.c.number <= NUMBERED)
    .order_by(FineTuningJobRow.account_id, _NUMBERS.c.number)
)
_ACCOUNTS = (
    select(AccountRow.id, AccountRow.place_time, QuotaRow)
    .outerjoin(QuotaRow, and_(QuotaRow.account_id == AccountRow.id, QuotaRow.id == RUNNING_JOBS))
    .where(AccountRow.id.in_(bindparam("accounts", expanding=True)))
)
_SERVE = (
    update(AccountRow)
    .where(AccountRow.id.in_(bindparam("served", expanding=True)))
    .values(place_time=bindparam("moment"), update_time=AccountRow.update_time)
    .execution_options(synchronize_session=False)
)
_TELL = (
    update(FineTuningJobRow)
    .where(FineTuningJobRow.uid == bindparam("waiting"), WAITS)
    .values(
        reason=bindparam("why"), status_message=bindparam("told"), update_time=FineTuningJobRow.update_time
    )
)
