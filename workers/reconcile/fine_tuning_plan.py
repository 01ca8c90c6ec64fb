"""What to do about a fine-tuning job: a pure function of what is wanted and what is seen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from controlplane.resources.fine_tuning_jobs.states import (
    CANCELLED,
    CANCELLING,
    CREATING,
    DELETING,
    FAILED,
    PENDING,
    RE_QUEUEING,
    RUNNING,
    WRITING_RESULTS,
)

MAX_CRASHES = 2
"""Trainers may end without a result so often before the job fails; each time it goes on from a checkpoint."""


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
    ADMIT = auto()
    """Ask for one of the node's trainer places; the job waits as PENDING until it has one."""
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
    CLEAR_RESULT = auto()
    """A resumed job: what its trainer said last time counts no more."""
    STOP = auto()
    CANCEL = auto()
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
    if view.state in (CREATING, PENDING):
        return Step.CLEAR_RESULT if view.outcome == "failed" else Step.ADMIT
    if view.state == WRITING_RESULTS:
        return STEP_OF_MODEL[view.model]
    if view.state not in (RUNNING, RE_QUEUEING):
        return STEP_OF_STATE.get(view.state, Step.NOTHING)
    if view.outcome == "failed":
        return Step.FAIL_WITH_RESULT
    if view.outcome == "succeeded":
        return Step.REGISTER_MODEL if view.model is OutputModel.NONE else Step.AWAIT_MODEL
    if view.trainer is Trainer.ENDED:
        return Step.FAIL_CRASHED if view.crashes >= MAX_CRASHES else Step.RESTART_CRASHED
    return STEP_OF_TRAINER[view.trainer]


# A job that was given up, or cancelled in the moment of a start, may have left its trainer at work.
WITHOUT_TRAINER = frozenset({CREATING, PENDING, FAILED, CANCELLING, CANCELLED, DELETING})
STEP_OF_STATE = {DELETING: Step.REMOVE, CANCELLING: Step.CANCEL}
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


def crash_message(exit_code: int | None, signal: int | None, log_lines: list[str]) -> str:
    """Why a trainer that left no result ended, with its last words."""
    if signal == 9:
        cause = "the trainer was killed (signal 9), most likely because the machine ran out of memory"
    elif signal is not None:
        cause = f"the trainer was ended by signal {signal}"
    else:
        cause = f"the trainer ended with exit code {exit_code} and without a result"
    return "\n".join([f"{cause}. Its last log lines:", *log_lines]) if log_lines else cause
