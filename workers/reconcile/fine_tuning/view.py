"""A fine-tuning job as one pass sees it: the row, the trainer, and what lies in the object store."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from controlplane.resources.fine_tuning_jobs.states import BEFORE_THE_END, PAUSING
from controlplane.resources.tables import FineTuningJobRow, ModelRow
from controlplane.resources.uploads import INVALID, READY
from controlplane.storage import ObjectNotFound
from workers.context import WorkerContext
from workers.reconcile.fine_tuning.plan import JobView, OutputModel, Trainer
from workers.reconcile.fine_tuning.result import REGISTERED
from workers.reconcile.job_log import cleaned
from workers.reconcile.lease import Lease
from workers.reconcile.visit import Superseded
from workers.runtimes.base import ProcessState, TrainerObservation
from workers.training.errors import TO_BE_STARTED_AGAIN
from workers.training.running.checkpoints import list_checkpoints

SHOWN_LOG_LINES = 20
PROGRESS = "progress.json"
RESULT = "result.json"

TRAINER_OF_PROCESS = {
    ProcessState.ABSENT: Trainer.ABSENT,
    ProcessState.RUNNING: Trainer.ALIVE,
    ProcessState.EXITED: Trainer.ENDED,
    ProcessState.LOST: Trainer.INTERRUPTED,
}


@dataclass(frozen=True)
class Loaded:
    row: FineTuningJobRow
    trainer: TrainerObservation
    progress: dict[str, Any]
    result: dict[str, Any]
    model: ModelRow | None
    newest_checkpoint: int = 0
    """Its step; looked for when the trainer has crashed."""

    @property
    def uid(self) -> str:
        return str(self.row.uid)

    def view(self) -> JobView:
        return JobView(
            self.row.state,
            self.crashes,
            trainer_of(self.trainer),
            self.result.get("outcome"),
            self.output(),
        )

    @property
    def crashes(self) -> int:
        """Since training last got on: a trainer that dies now and then ends its job all the same."""
        return 0 if self.newest_checkpoint > self.row.crash_step else self.row.crashes

    def output(self) -> OutputModel:
        if self.model is None:
            return OutputModel.GONE if self.row.reason == REGISTERED else OutputModel.NONE
        if self.model.state == READY:
            return OutputModel.READY
        return OutputModel.INVALID if self.model.reason == INVALID else OutputModel.CHECKING


def load(context: WorkerContext, uid: uuid.UUID) -> Loaded:
    with context.db.session() as session:
        row = session.get_one(FineTuningJobRow, uid)
        model = session.get(ModelRow, row.output_model_uid) if row.output_model_uid else None
    trainer = context.trainers.observe_trainer(str(row.uid), row.attempt)
    # No trainer, no files of one.
    if not row.attempt or row.state not in (*BEFORE_THE_END, PAUSING):
        return Loaded(row, trainer, {}, {}, model)
    progress = read_json(context, row.prefix + PROGRESS)
    result = read_json(context, row.prefix + RESULT)
    newest = 0
    if not result and trainer_of(trainer) is Trainer.ENDED:
        newest = max(list_checkpoints(context.store, row.prefix), default=0)
    return Loaded(row, trainer, progress, result, model, newest)


def guard(lease: Lease, session: Session, loaded: Loaded) -> FineTuningJobRow:
    """The row, locked. A step planned for another state than it has now, being deleted say, is not taken."""
    row: FineTuningJobRow = lease.guard(session)
    if row.state != loaded.row.state:
        raise Superseded
    return row


def read_json(context: WorkerContext, key: str) -> dict[str, Any]:
    try:
        # A loss that is not a number is no JSON, and PostgreSQL would not take it.
        found = json.loads(context.store.get_bytes(key), parse_constant=lambda _: None)
    except (ObjectNotFound, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def trainer_of(seen: TrainerObservation) -> Trainer:
    if seen.state is ProcessState.EXITED and (seen.stopped or seen.exit_code in TO_BE_STARTED_AGAIN):
        return Trainer.INTERRUPTED
    return TRAINER_OF_PROCESS[seen.state]


def log_lines(context: WorkerContext, loaded: Loaded) -> list[str]:
    """The last lines that the trainer printed, as the job's owner may see them."""
    shown = "\n".join(loaded.trainer.log_tail.splitlines()[-SHOWN_LOG_LINES:])
    return cleaned(shown, context.settings, loaded.row.account_id).splitlines()
