"""What to do about a fine-tuning job: a pure function of what is wanted and what is seen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from controlplane.resources.fine_tuning_jobs.states import (
    AT_WORK,
    CANCELLED,
    CANCELLING,
    COMPLETED,
    CREATING,
    DELETING,
    EARLY_STOPPED,
    FAILED,
    PAUSED,
    PAUSING,
    PENDING,
    QUEUED,
    RESUMING,
    WRITING_RESULTS,
)

MAX_CRASHES = 2
"""So often trainers may end without a result, and without a new checkpoint in between."""


class Trainer(Enum):
    ABSENT = auto()
    """None was started in this attempt."""
    ALIVE = auto()
    ENDED = auto()
    """It ended by itself."""
    INTERRUPTED = auto()
    """It was stopped, or vanished with the machine or the supervisor: nobody's fault."""


class OutputModel(Enum):
    NONE = auto()
    CHECKING = auto()
    READY = auto()
    INVALID = auto()
    GONE = auto()
    """Registered, and deleted before its check had ended."""


class Step(Enum):
    CLEAR_RESULT = auto()
    """A resumed job: what its trainer said last time counts no more."""
    QUEUE = auto()
    WAIT = auto()
    """For one of the trainers' places."""
    START = auto()
    RESTART_INTERRUPTED = auto()
    RESTART_CRASHED = auto()
    FOLLOW = auto()
    """The trainer is at work: copy its progress."""
    REGISTER_MODEL = auto()
    AWAIT_MODEL = auto()
    COMPLETE = auto()
    FAIL_WITH_RESULT = auto()
    FAIL_CRASHED = auto()
    FAIL_MODEL = auto()
    FAIL_MODEL_GONE = auto()
    STOP = auto()
    PAUSE = auto()
    CANCEL = auto()
    TIDY = auto()
    """The job rests: free what its trainer left on the node."""
    REMOVE = auto()
    NOTHING = auto()


@dataclass(frozen=True)
class JobView:
    """What is known of a job at one moment."""

    state: str
    crashes: int
    trainer: Trainer
    outcome: str | None
    """`succeeded` or `failed` once the trainer has written its result."""
    model: OutputModel


def plan_job(view: JobView) -> Step:
    """The next step. The result counts more than the process: it is written last of all."""
    if view.state in WITHOUT_TRAINER and view.trainer is Trainer.ALIVE:
        return Step.STOP
    if view.state in AT_REST:
        return Step.NOTHING if view.trainer is Trainer.ABSENT else Step.TIDY
    if view.state in (CREATING, RESUMING):
        return Step.CLEAR_RESULT if view.outcome == "failed" else Step.QUEUE
    if view.state == WRITING_RESULTS:
        return STEP_OF_MODEL[view.model]
    if view.outcome == "failed" and view.state in (*AT_WORK, PAUSING):
        return Step.FAIL_WITH_RESULT
    if view.state not in AT_WORK:
        return STEP_OF_STATE[view.state]
    if view.outcome == "succeeded":
        return Step.REGISTER_MODEL if view.model is OutputModel.NONE else Step.AWAIT_MODEL
    if view.trainer is Trainer.ENDED:
        return Step.FAIL_CRASHED if view.crashes >= MAX_CRASHES else Step.RESTART_CRASHED
    return STEP_OF_TRAINER[view.trainer]


AT_REST = frozenset({COMPLETED, EARLY_STOPPED, FAILED, CANCELLED, PAUSED})
# A job that was given up, or cancelled in the moment of a start, may have left its trainer at work.
WITHOUT_TRAINER = AT_REST | {*QUEUED, PAUSING, CANCELLING, DELETING}
STEP_OF_STATE = {
    PENDING: Step.WAIT,
    PAUSING: Step.PAUSE,
    CANCELLING: Step.CANCEL,
    DELETING: Step.REMOVE,
}
STEP_OF_MODEL = {
    OutputModel.NONE: Step.REGISTER_MODEL,
    OutputModel.CHECKING: Step.AWAIT_MODEL,
    OutputModel.READY: Step.COMPLETE,
    OutputModel.INVALID: Step.FAIL_MODEL,
    OutputModel.GONE: Step.FAIL_MODEL_GONE,
}
STEP_OF_TRAINER = {
    Trainer.ABSENT: Step.START,
    Trainer.ALIVE: Step.FOLLOW,
    Trainer.INTERRUPTED: Step.RESTART_INTERRUPTED,
}


def success_message(result: dict[str, Any]) -> str:
    """The metrics as the original writes them: a dictionary as text."""
    return str(result.get("metrics", {}))
