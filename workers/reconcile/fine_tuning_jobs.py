"""Making fine-tuning jobs true: one trainer process a job, followed until its result is a model."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from controlplane.db import now
from controlplane.prices import Prices
from controlplane.resources.fine_tuning_jobs.states import (
    BEFORE_THE_END,
    CANCELLED,
    COMPLETED,
    DELETING,
    EARLY_STOPPED,
    FAILED,
    PENDING,
    PLACED,
    RE_QUEUEING,
    RUNNING,
    WRITING_RESULTS,
    mark,
)
from controlplane.resources.tables import FineTuningJobRow, GarbageRow, ModelRow
from controlplane.resources.uploads import INVALID, READY
from controlplane.rest.schema import STATUS_CODES
from controlplane.storage import ObjectNotFound
from workers.context import WorkerContext
from workers.metering import meter_job
from workers.reconcile.fine_tuning_plan import (
    JobView,
    OutputModel,
    Step,
    Trainer,
    crash_message,
    plan_job,
    success_message,
)
from workers.reconcile.fine_tuning_result import REGISTERED, model_prefix, register_model
from workers.reconcile.fine_tuning_spec import job_spec
from workers.reconcile.job_log import cleaned, keep_log
from workers.reconcile.lease import Lease
from workers.reconcile.visit import Superseded, visit
from workers.runtimes.base import NoCapacity, ProcessState, TrainerObservation, TrainerSpec

SOON = timedelta(0)
POLL = timedelta(seconds=1)
WAIT_FOR_PLACE = timedelta(seconds=2)
SHOWN_LOG_LINES = 20
PROGRESS = "progress.json"
RESULT = "result.json"

TRAINER_OF_PROCESS = {
    ProcessState.ABSENT: Trainer.ABSENT,
    ProcessState.RUNNING: Trainer.ALIVE,
    ProcessState.EXITED: Trainer.ENDED,
    ProcessState.LOST: Trainer.INTERRUPTED,
}

# Admissions wait for each other on this lock, so that two workers do not give away one place twice.
ADMISSION_LOCK = 0x48454153


@dataclass(frozen=True)
class Loaded:
    """A job as one pass sees it: the row, the trainer, and what lies in the object store."""

    row: FineTuningJobRow
    trainer: TrainerObservation
    progress: dict[str, Any]
    result: dict[str, Any]
    model: ModelRow | None

    def view(self) -> JobView:
        return JobView(
            self.row.state,
            self.row.crashes,
            trainer_of(self.trainer),
            self.result.get("outcome"),
            self.output(),
        )

    def output(self) -> OutputModel:
        if self.model is None:
            return OutputModel.GONE if self.row.reason == REGISTERED else OutputModel.NONE
        if self.model.state == READY:
            return OutputModel.READY
        return OutputModel.INVALID if self.model.reason == INVALID else OutputModel.CHECKING


def reconcile_fine_tuning_job(context: WorkerContext, uid: uuid.UUID) -> None:
    """One pass over a job, when it is due: load, plan, execute, write while the lease holds."""
    visit(context, FineTuningJobRow, uid, run_pass, give_up_job)


def run_pass(context: WorkerContext, lease: Lease) -> timedelta | None:
    loaded = load(context, lease.uid)
    if loaded.trainer.state is not ProcessState.ABSENT and loaded.row.state != DELETING:
        # Before the step: it may start another trainer, or remove what this one left.
        keep_log(context, loaded.row, ended=loaded.trainer.state is not ProcessState.RUNNING)
    return STEPS[plan_job(loaded.view())](context, lease, loaded)


def give_up_job(row: FineTuningJobRow, cause: str) -> bool:
    """The end of a job that no worker can bring on. Stopping and deleting are tried on for ever."""
    if row.state not in BEFORE_THE_END:
        return False
    row.end_time = now()
    message = f"the job could not be brought on: {cause}"
    mark(row, FAILED, code="INTERNAL", reason="RECONCILE_FAILED", message=message)
    return True


def guard(lease: Lease, session: Session, loaded: Loaded) -> FineTuningJobRow:
    """The row, locked. A step planned for another state than it has now, being deleted say, is not taken."""
    row: FineTuningJobRow = lease.guard(session)
    if row.state != loaded.row.state:
        raise Superseded
    return row


def load(context: WorkerContext, uid: uuid.UUID) -> Loaded:
    with context.db.session() as session:
        row = session.get_one(FineTuningJobRow, uid)
        model = session.get(ModelRow, row.output_model_uid) if row.output_model_uid else None
    trainer = context.runtime.observe_trainer(str(row.uid), row.attempt)
    # No trainer, no files of one.
    if not row.attempt or row.state not in BEFORE_THE_END:
        return Loaded(row, trainer, {}, {}, model)
    progress = read_json(context, row.prefix + PROGRESS)
    return Loaded(row, trainer, progress, read_json(context, row.prefix + RESULT), model)


def read_json(context: WorkerContext, key: str) -> dict[str, Any]:
    try:
        # A loss that is not a number is no JSON, and PostgreSQL would not take it.
        found = json.loads(context.store.get_bytes(key), parse_constant=lambda _: None)
    except (ObjectNotFound, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def trainer_of(seen: TrainerObservation) -> Trainer:
    if seen.state is ProcessState.EXITED and seen.stopped:
        return Trainer.INTERRUPTED
    return TRAINER_OF_PROCESS[seen.state]


def admit(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    """Give the job a trainer's place when one is free."""
    with context.db.session() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADMISSION_LOCK})
        row = guard(lease, session, loaded)
        running = session.scalar(
            select(func.count()).select_from(FineTuningJobRow).where(FineTuningJobRow.state.in_(PLACED))
        )
        if row.state != PENDING:
            mark(row, PENDING)
        if (running or 0) >= context.settings.max_trainers:
            mark(
                row, PENDING, reason="WAITING_FOR_PLACE", message=f"waiting for {running} running jobs to end"
            )
            return WAIT_FOR_PLACE
        mark(row, RUNNING, reason="STARTING", message="starting its trainer")
        row.attempt += 1
        row.start_time = row.start_time or now()
    return SOON


def start(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    with context.db.session() as session:
        document = job_spec(session, guard(lease, session, loaded))
    try:
        context.runtime.start_trainer(TrainerSpec(str(loaded.row.uid), loaded.row.attempt, document))
    except NoCapacity as error:
        with context.db.session() as session:
            row = guard(lease, session, loaded)
            mark(row, row.state, reason="NO_CAPACITY", message=str(error))
        return WAIT_FOR_PLACE
    return POLL


def restart(
    context: WorkerContext, lease: Lease, loaded: Loaded, *, crashed: bool, message: str
) -> timedelta | None:
    """Another attempt; the trainer goes on from its last good checkpoint."""
    with context.db.session() as session:
        row = guard(lease, session, loaded)
        row.attempt += 1
        row.crashes += 1 if crashed else 0
        mark(row, RE_QUEUEING, reason="RESTARTING", message=message)
    return SOON


def restart_interrupted(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    return restart(context, lease, loaded, crashed=False, message="going on after an interruption")


def restart_crashed(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    return restart(context, lease, loaded, crashed=True, message=crash_message_of(context, loaded))


def follow(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    news = loaded.progress and loaded.progress != loaded.row.progress
    if news or loaded.row.state != RUNNING:
        with context.db.session() as session:
            row = guard(lease, session, loaded)
            row.progress = loaded.progress or row.progress
            mark(row, RUNNING, reason=str(loaded.progress.get("phase", "")), message="")
    return POLL


def register(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    with context.db.session() as session:
        guard(lease, session, loaded)
    register_model(context, lease, loaded.row, loaded.result)
    return SOON


def await_model(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    if loaded.row.state != WRITING_RESULTS:  # resumed when the model was there already
        with context.db.session() as session:
            row = guard(lease, session, loaded)
            row.result = loaded.result
            mark(row, WRITING_RESULTS, reason=REGISTERED, message="its model is being checked")
    return POLL


def complete(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    result = loaded.result or loaded.row.result
    state = EARLY_STOPPED if result.get("report", {}).get("stopped_early") else COMPLETED
    with context.db.session() as session:
        end(lease, session, loaded, state, "OK", "", success_message(result))
        job = session.get_one(FineTuningJobRow, lease.uid)
        meter_job(session, context.settings.prices or Prices(), job, result)
    context.runtime.remove_trainer(str(loaded.row.uid), loaded.row.attempt)
    return None


def fail_with_result(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    result = loaded.result
    said = last_words(log_lines(context, loaded))
    message = "\n".join([str(result.get("message", "the trainer failed")), *said])
    with context.db.session() as session:
        end(lease, session, loaded, FAILED, code_of(result), result.get("reason", ""), message)
    return None


def fail_crashed(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    with context.db.session() as session:
        message = crash_message_of(context, loaded)
        end(lease, session, loaded, FAILED, "INTERNAL", "TRAINER_CRASHED", message)
    return None


def fail_model(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    """The adapter did not pass the check that every uploaded addon passes."""
    why = loaded.model.status_message if loaded.model else ""
    with context.db.session() as session:
        message = f"the trained adapter did not pass its check: {why}"
        end(lease, session, loaded, FAILED, "INTERNAL", "ADAPTER_INVALID", message)
        model = session.get(ModelRow, loaded.row.output_model_uid)
        if model is not None:
            session.add(GarbageRow(prefix=model.prefix))
            session.delete(model)
    return None


def fail_model_gone(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    with context.db.session() as session:
        message = f"its model {loaded.row.model_id} was deleted while its files were being checked"
        end(lease, session, loaded, FAILED, "ABORTED", "MODEL_DELETED", message)
    return None


def end(
    lease: Lease, session: Session, loaded: Loaded, state: str, code: str, reason: str, message: str
) -> None:
    row = guard(lease, session, loaded)
    row.result = loaded.result or row.result
    row.progress = loaded.progress or row.progress
    row.end_time = now()
    mark(row, state, code=code, reason=reason, message=message)


def clear_result(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    with context.db.session() as session:
        guard(lease, session, loaded)
    context.store.delete(loaded.row.prefix + RESULT)
    return SOON


def stop(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    context.runtime.stop_trainer(str(loaded.row.uid), loaded.row.attempt)
    return POLL


def cancel(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    """The end of a cancelled job. An attempt that is told to stop before it started does not start."""
    if loaded.row.attempt:
        context.runtime.stop_trainer(str(loaded.row.uid), loaded.row.attempt)
    progress = read_json(context, loaded.row.prefix + PROGRESS)
    with context.db.session() as session:
        row = guard(lease, session, loaded)
        row.end_time, row.progress = now(), progress or row.progress
        message = "it was cancelled; resumed, it goes on from its last checkpoint"
        mark(row, CANCELLED, code="CANCELLED", message=message)
    return None


def remove(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    """The end of a deleted job: its folders, its objects, its row. The model it made stays."""
    for attempt in range(1, loaded.row.attempt + 1):
        context.runtime.remove_trainer(str(loaded.row.uid), attempt)
    with context.db.session() as session:
        row = lease.guard(session)
        session.add(GarbageRow(prefix=row.prefix))
        if row.output_model_uid and session.get(ModelRow, row.output_model_uid) is None:
            # Its files were on their way to a model that does not exist, or does no more.
            session.add(GarbageRow(prefix=model_prefix(row, row.output_model_uid)))
        session.delete(row)
    return None


def nothing(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    return None


def code_of(result: dict[str, Any]) -> str:
    """The code that a trainer gives for its failure; what is none stands for a fault of the platform's."""
    code = result.get("code")
    return code if code in STATUS_CODES else "INTERNAL"


def crash_message_of(context: WorkerContext, loaded: Loaded) -> str:
    return crash_message(loaded.trainer.exit_code, loaded.trainer.signal, log_lines(context, loaded))


def log_lines(context: WorkerContext, loaded: Loaded) -> list[str]:
    shown = "\n".join(loaded.trainer.log_tail.splitlines()[-SHOWN_LOG_LINES:])
    return cleaned(shown, context.settings, loaded.row.account_id).splitlines()


def last_words(lines: list[str]) -> list[str]:
    return ["Last log lines:", *lines] if lines else []


STEPS: dict[Step, Callable[[WorkerContext, Lease, Loaded], timedelta | None]] = {
    Step.ADMIT: admit,
    Step.START: start,
    Step.RESTART_INTERRUPTED: restart_interrupted,
    Step.RESTART_CRASHED: restart_crashed,
    Step.FOLLOW: follow,
    Step.REGISTER_MODEL: register,
    Step.AWAIT_MODEL: await_model,
    Step.COMPLETE: complete,
    Step.FAIL_WITH_RESULT: fail_with_result,
    Step.FAIL_CRASHED: fail_crashed,
    Step.FAIL_MODEL: fail_model,
    Step.FAIL_MODEL_GONE: fail_model_gone,
    Step.CLEAR_RESULT: clear_result,
    Step.STOP: stop,
    Step.CANCEL: cancel,
    Step.REMOVE: remove,
    Step.NOTHING: nothing,
}
