"""Making fine-tuning jobs true: one trainer process a job, followed until its result is a model.

A pass is load (`fine_tuning_view`) → plan (`fine_tuning_plan`) → one step: around the trainer
(`fine_tuning_trainer`), or of the job's end (`fine_tuning_ends`). Who gets a free place is decided over all
jobs at once (`fine_tuning_places`).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import select

from controlplane.db import now
from controlplane.resources.fine_tuning_jobs.states import (
    BEFORE_THE_END,
    FAILED,
    WRITING_RESULTS,
    mark,
)
from controlplane.resources.tables import FineTuningJobRow
from controlplane.storage import StorageUnavailable
from workers.context import WorkerContext
from workers.reconcile.fine_tuning import ends, trainer
from workers.reconcile.fine_tuning.places import give_places
from workers.reconcile.fine_tuning.plan import AT_REST, Step, plan_job
from workers.reconcile.fine_tuning.view import Loaded, load
from workers.reconcile.job_log import keep_log
from workers.reconcile.lease import Lease
from workers.reconcile.models import reconcile_model
from workers.reconcile.visit import WAIT_FOR_STORE, visit
from workers.runtimes.base import ProcessState, RuntimeUnavailable, Waiting

log = logging.getLogger(__name__)

CLUSTER_UNAVAILABLE = Waiting.CLUSTER_UNAVAILABLE
UNAVAILABLE_POLL = timedelta(seconds=5)
MOST_PASSES = 10
"""Of one job in a row, before others get their turn."""


def bring_on_job(context: WorkerContext, uid: uuid.UUID) -> None:
    """Passes over a job, as long as there is something to do at once."""
    for _ in range(MOST_PASSES):
        if not reconcile_fine_tuning_job(context, uid):
            return
        check_model_of(context, uid)


def check_model_of(context: WorkerContext, uid: uuid.UUID) -> None:
    """Check the model that a job has made at once: a hint would cost the time that it takes to arrive."""
    made = select(FineTuningJobRow.output_model_uid).where(
        FineTuningJobRow.uid == uid, FineTuningJobRow.state == WRITING_RESULTS
    )
    with context.db.session() as session:
        model_uid = session.scalar(made)
    if model_uid is not None:
        reconcile_model(context, model_uid)


def reconcile_fine_tuning_job(context: WorkerContext, uid: uuid.UUID) -> bool:
    """One pass over a job: load, plan, execute, write while the lease holds. False when it is not due."""
    return visit(context, FineTuningJobRow, uid, run_pass, give_up_job)


def run_pass(context: WorkerContext, lease: Lease) -> timedelta | None:
    try:
        return take_step(context, lease)
    except RuntimeUnavailable as error:
        return wait_for_cluster(context, lease, str(error))


def wait_for_cluster(context: WorkerContext, lease: Lease, why: str) -> timedelta:
    """What runs goes on meanwhile. A job that has ended keeps its own reason."""
    log.warning("fine-tuning job %s: %s", lease.uid, why)
    with context.db.session() as session:
        row: FineTuningJobRow = lease.guard(session)
        if row.state not in AT_REST and (row.reason, row.status_message) != (CLUSTER_UNAVAILABLE, why):
            mark(row, row.state, reason=CLUSTER_UNAVAILABLE, message=why)
    return UNAVAILABLE_POLL


def take_step(context: WorkerContext, lease: Lease) -> timedelta | None:
    loaded = load(context, lease.uid)
    step = plan_job(loaded.view())
    if loaded.trainer.state is not ProcessState.ABSENT and step not in WITHOUT_LOG:
        # Before the step: it may start another trainer, or remove what this one left.
        try:
            keep_log(context, loaded.row, ended=loaded.trainer.state is not ProcessState.RUNNING)
        except StorageUnavailable:
            if step is not Step.TIDY:
                raise
            return WAIT_FOR_STORE  # What a job says of how it ended stays.
    next_after = STEPS[step](context, lease, loaded)
    if step in MOVES_QUEUE:
        give_places(context)
    return next_after


def give_up_job(row: FineTuningJobRow, cause: str) -> bool:
    """The end of a job that no worker can bring on. Stopping and deleting are tried on for ever."""
    if row.state not in BEFORE_THE_END:
        return False
    row.end_time = now()
    message = f"the job could not be brought on: {cause}"
    mark(row, FAILED, code="INTERNAL", reason="RECONCILE_FAILED", message=message)
    return True


def wait_for_place(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    """It is woken when it gets a place."""
    return None


STEPS: dict[Step, Callable[[WorkerContext, Lease, Loaded], timedelta | None]] = {
    Step.CLEAR_RESULT: trainer.clear_result,
    Step.QUEUE: trainer.queue,
    Step.WAIT: wait_for_place,
    Step.START: trainer.start,
    Step.RESTART_INTERRUPTED: trainer.restart_interrupted,
    Step.RESTART_CRASHED: trainer.restart_crashed,
    Step.FOLLOW: trainer.follow,
    Step.REGISTER_MODEL: ends.register,
    Step.AWAIT_MODEL: ends.await_model,
    Step.COMPLETE: ends.complete,
    Step.FAIL_WITH_RESULT: ends.fail_with_result,
    Step.FAIL_CRASHED: ends.fail_crashed,
    Step.FAIL_MODEL: ends.fail_model,
    Step.FAIL_MODEL_GONE: ends.fail_model_gone,
    Step.STOP: trainer.stop,
    Step.PAUSE: trainer.pause,
    Step.CANCEL: trainer.cancel,
    Step.TIDY: trainer.tidy,
    Step.REMOVE: trainer.remove,
    Step.NOTHING: trainer.nothing,
}

# A stop does not wait for the object store, and what is removed leaves no log.
WITHOUT_LOG = frozenset({Step.STOP, Step.REMOVE})

# After these a place may be free, or somebody new waits for one.
MOVES_QUEUE = frozenset(
    {
        Step.QUEUE,
        Step.WAIT,
        Step.REGISTER_MODEL,
        Step.AWAIT_MODEL,
        Step.FAIL_WITH_RESULT,
        Step.FAIL_CRASHED,
        Step.PAUSE,
        Step.CANCEL,
        Step.REMOVE,
    }
)
