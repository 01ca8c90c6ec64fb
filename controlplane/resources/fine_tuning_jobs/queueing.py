"""When a job's turn comes among those of its account.

A job queues as if it had come `PRIORITY_STEP` earlier for each point of its priority, and whoever came first
is first. So the order of two jobs never changes, and nothing waits for ever: what is asked for with the
lowest priority is overtaken for twenty hours at most by what is asked for with the highest.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from controlplane.db import now
from controlplane.errors import failed_precondition
from controlplane.resources.fine_tuning_jobs.states import PAUSED, PAUSING, QUEUED, job_state
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow

HIGHEST_PRIORITY = 100
LOWEST_PRIORITY = -100
PRIORITY_STEP = timedelta(minutes=6)

Priority = Annotated[
    int,
    Field(
        ge=LOWEST_PRIORITY,
        le=HIGHEST_PRIORITY,
        description="Where the job stands in its account's queue: each point counts as six minutes' waiting.",
    ),
]


def turn(moment: datetime, priority: int) -> datetime:
    """The `queue_time` of a job that comes at `moment`: the earliest is first."""
    return moment - priority * PRIORITY_STEP


def join_queue(row: FineTuningJobRow) -> None:
    """Let a job stand at the end of its account's queue, as far as its priority goes."""
    row.queue_time = turn(now(), row.priority)


def change_priority(row: FineTuningJobRow, priority: int) -> None:
    """400 for a job that is not to queue any more: nothing would come of it."""
    if row.priority == priority:
        return
    if row.state not in (*QUEUED, PAUSING, PAUSED):
        raise failed_precondition(
            f"cannot change the priority of a job in state {job_state(row.state)}: it has left the queue"
        )
    row.queue_time -= (priority - row.priority) * PRIORITY_STEP
    row.priority = priority
