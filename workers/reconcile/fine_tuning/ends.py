"""The steps with which a job ends: its result becomes a model, or the reason is told why there is none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from controlplane.db import now
from controlplane.prices import Prices
from controlplane.resources.fine_tuning_jobs.states import (
    COMPLETED,
    EARLY_STOPPED,
    FAILED,
    WRITING_RESULTS,
    mark,
)
from controlplane.resources.tables import FineTuningJobRow, GarbageRow, ModelRow
from controlplane.rest.schema import STATUS_CODES
from workers.context import WorkerContext
from workers.metering import meter_job
from workers.reconcile.fine_tuning.plan import success_message
from workers.reconcile.fine_tuning.result import REGISTERED, register_model
from workers.reconcile.fine_tuning.trainer import POLL, SOON, crash_message_of, crash_of
from workers.reconcile.fine_tuning.view import Loaded, guard, log_lines
from workers.reconcile.lease import Lease


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
    return SOON


def fail_with_result(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    result = loaded.result
    said = last_words(log_lines(context, loaded))
    message = "\n".join([str(result.get("message", "the trainer failed")), *said])
    with context.db.session() as session:
        end(lease, session, loaded, FAILED, code_of(result), result.get("reason", ""), message)
    return SOON


def fail_crashed(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    with context.db.session() as session:
        message = crash_message_of(context, loaded)
        end(lease, session, loaded, FAILED, *crash_of(loaded).code, message)
    return SOON


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
    return SOON


def fail_model_gone(context: WorkerContext, lease: Lease, loaded: Loaded) -> timedelta | None:
    with context.db.session() as session:
        message = f"its model {loaded.row.model_id} was deleted while its files were being checked"
        end(lease, session, loaded, FAILED, "ABORTED", "MODEL_DELETED", message)
    return SOON


def end(
    lease: Lease, session: Session, loaded: Loaded, state: str, code: str, reason: str, message: str
) -> None:
    row = guard(lease, session, loaded)
    row.result = loaded.result or row.result
    row.progress = loaded.progress or row.progress
    row.end_time = now()
    mark(row, state, code=code, reason=reason, message=message)


def code_of(result: dict[str, Any]) -> str:
    """The code that a trainer gives for its failure; what is none stands for a fault of the platform's."""
    code = result.get("code")
    return code if code in STATUS_CODES else "INTERNAL"


def last_words(lines: list[str]) -> list[str]:
    return ["Last log lines:", *lines] if lines else []
