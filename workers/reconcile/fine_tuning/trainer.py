"""The steps of a job around its trainer: started, followed, started again, stopped, tidied away."""

from __future__ import annotations

from datetime import timedelta

from controlplane.db import now
from controlplane.prices import Prices
from controlplane.resources.fine_tuning_jobs.states import (
    CANCELLED,
    CANCELLING,
    DELETING,
    FAILED,
    PAUSED,
    PAUSING,
    PENDING,
    RE_QUEUEING,
    RESUMING,
    RUNNING,
    mark,
)
from controlplane.resources.tables import FineTuningJobRow, GarbageRow, ModelRow
from workers.context import WorkerContext
from workers.metering import meter_job
from workers.reconcile.fine_tuning.crash import Crash, crash_message
from workers.reconcile.fine_tuning.result import model_prefix
from workers.reconcile.fine_tuning.spec import job_spec, secrets_of
from workers.reconcile.fine_tuning.view import PROGRESS, RESULT, Loaded, guard, log_lines, read_json
from workers.reconcile.lease import Lease
from workers.runtimes.base import NeverFits, NoCapacity, TrainerSpec, Waiting
from workers.training.running.checkpoints import drop_unfinished

STOPPING = (CANCELLING, PAUSING, DELETING)

SOON = timedelta(0)
POLL = timedelta(seconds=1)
WAIT_FOR_CAPACITY = timedelta(seconds=2)

PAUSE_GRACE_SECONDS = 60.0
"""A trainer that is to go on later finishes its step, and writes and uploads a checkpoint."""
END_GRACE_SECONDS = 6.0
"""A cancel is to be over within ten seconds, whatever the trainer is doing."""


def queue(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    """Nothing is in the job's way: from now on it may be given a place."""
    with context.db.session() as session:
        row = guard(lease, session, loaded)
        mark(row, PENDING, reason="WAITING_FOR_PLACE", message="waiting in its account's queue")
    return SOON


def clear_result(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    """A job that goes on: what its trainer said last time counts no more."""
    with context.db.session() as session:
        guard(lease, session, loaded)
    context.store.delete(loaded.row.prefix + RESULT)
    return SOON


def start(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    with context.db.session() as session:
        row = guard(lease, session, loaded)
        document = job_spec(session, row, context.settings)
        secrets = secrets_of(row, context.settings)
        facts = session.get_one(ModelRow, row.base_model_uid).facts
    try:
        if is_on_this_machine(context, loaded.uid):
            raise NoCapacity("its trainer on the worker's own machine, from before, has not ended yet")
        attempt, processes = loaded.row.attempt, document["processes"]
        context.trainers.start_trainer(TrainerSpec(loaded.uid, attempt, document, secrets, processes, facts))
    except NeverFits as error:
        with context.db.session() as session:
            row = guard(lease, session, loaded)
            row.end_time = now()
            mark(row, FAILED, code="RESOURCE_EXHAUSTED", reason="NO_CAPACITY", message=str(error))
        return SOON
    except NoCapacity as error:
        with context.db.session() as session:
            row = guard(lease, session, loaded)
            mark(row, row.state, reason="NO_CAPACITY", message=str(error))
        return WAIT_FOR_CAPACITY
    return POLL


def is_on_this_machine(context: WorkerContext, uid: str) -> bool:
    """Whether a trainer of the job is left from before there was a cluster; the sweep stops it."""
    if context.jobs is None:
        return False
    return any(job_uid == uid for job_uid, _ in context.runtime.list_trainers())


def restart(
    context: WorkerContext, lease: Lease, loaded: Loaded, *, crashed: bool, message: str
) -> timedelta | None:
    """Another attempt; the trainer goes on from its last good checkpoint."""
    with context.db.session() as session:
        row = guard(lease, session, loaded)
        row.attempt += 1
        if crashed:
            row.crashes, row.crash_step = loaded.crashes + 1, loaded.newest_checkpoint
        mark(row, RE_QUEUEING, reason="RESTARTING", message=message)
    context.trainers.remove_trainer(loaded.uid, loaded.row.attempt)
    return SOON


def restart_interrupted(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    return restart(context, lease, loaded, crashed=False, message="going on after an interruption")


def restart_crashed(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    return restart(context, lease, loaded, crashed=True, message=crash_message_of(context, loaded))


def follow(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    """Copy its progress, or say why it makes none."""
    seen, was = loaded.trainer, loaded.row
    told = (seen.reason, seen.message) if seen.message else (str(loaded.progress.get("phase", "")), "")
    waits = bool(seen.message) or was.reason in Waiting.__members__
    if was.state != RUNNING or is_progress(loaded) or (waits and told != (was.reason, was.status_message)):
        with context.db.session() as session:
            row = guard(lease, session, loaded)
            row.progress = loaded.progress or row.progress
            mark(row, RUNNING, reason=told[0], message=told[1])
    return POLL


def is_progress(loaded: Loaded) -> bool:
    return bool(loaded.progress) and loaded.progress != loaded.row.progress


def stop(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    goes_on = loaded.row.state in (PAUSING, RESUMING)
    grace = PAUSE_GRACE_SECONDS if goes_on else END_GRACE_SECONDS
    context.trainers.stop_trainer(loaded.uid, loaded.row.attempt, grace)
    seen, row = loaded.trainer, loaded.row
    if seen.message and seen.message != row.status_message and row.state in STOPPING:
        with context.db.session() as session:
            mark(guard(lease, session, loaded), row.state, reason=seen.reason, message=seen.message)
    return POLL


def pause(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    message = "paused; resumed, it goes on from its last checkpoint"
    return come_to_rest(context, lease, loaded, PAUSED, "OK", message)


def cancel(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    message = "it was cancelled; resumed, it goes on from its last checkpoint"
    return come_to_rest(context, lease, loaded, CANCELLED, "CANCELLED", message)


def come_to_rest(
    context: WorkerContext, lease: Lease, loaded: Loaded, state: str, code: str, message: str
) -> timedelta | None:
    """The end of a stop. An attempt that is told to stop before it started does not start."""
    if loaded.row.attempt:
        context.trainers.stop_trainer(loaded.uid, loaded.row.attempt, END_GRACE_SECONDS)
        drop_unfinished(context.store, loaded.row.prefix)
    progress = read_json(context, loaded.row.prefix + PROGRESS)
    with context.db.session() as session:
        row = guard(lease, session, loaded)
        row.progress = progress or row.progress
        row.end_time = now() if state == CANCELLED else None
        mark(row, state, code=code, message=message)
    return SOON


def tidy(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    """Free what the trainer had on its node. Its log is in the object store by now."""
    with context.db.session() as session:
        guard(lease, session, loaded)
    return None if remove_folders(context, loaded.row) else POLL


def remove(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    """The end of a deleted job: its folders, its objects, its row. The model it made stays."""
    if not remove_folders(context, loaded.row):
        return POLL
    with context.db.session() as session:
        row = lease.guard(session)
        session.add(GarbageRow(prefix=row.prefix))
        made = session.get(ModelRow, row.output_model_uid) if row.output_model_uid else None
        if row.output_model_uid and made is None:
            # Its files were on their way to a model that does not exist, or does no more.
            session.add(GarbageRow(prefix=model_prefix(row, row.output_model_uid)))
        if made is not None and row.result and row.end_time is None:
            # Deleted while its model was being checked: the model stays, and so does what it cost.
            meter_job(session, context.settings.prices or Prices(), row, row.result)
        session.delete(row)
    return None


def remove_folders(context: WorkerContext, row: FineTuningJobRow) -> bool:
    """Whether none is left. Those of earlier attempts went when the next one began, unless that failed."""
    attempts = range(1, row.attempt + 1)
    left = [attempt for attempt in attempts if not context.trainers.remove_trainer(str(row.uid), attempt)]
    return not left


def nothing(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    return None


def crash_message_of(context: WorkerContext, loaded: Loaded) -> str:
    return crash_message(crash_of(loaded), log_lines(context, loaded))


def crash_of(loaded: Loaded) -> Crash:
    return Crash(loaded.trainer.exit_code, loaded.trainer.signal, loaded.trainer.memory)
