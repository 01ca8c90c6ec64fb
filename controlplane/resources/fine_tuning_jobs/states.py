"""The states of a fine-tuning job, which may follow which, and what each collection calls them."""

from __future__ import annotations

from typing import Any

CREATING = "CREATING"
PENDING = "PENDING"
"""In the queue for one of the trainers' places."""
RUNNING = "RUNNING"
RE_QUEUEING = "RE_QUEUEING"
"""Its trainer was lost, and another is about to go on from the last checkpoint."""
WRITING_RESULTS = "WRITING_RESULTS"
"""Trained; its model is being checked."""
COMPLETED = "COMPLETED"
EARLY_STOPPED = "EARLY_STOPPED"
"""Completed before its last step, because the evaluation got no better."""
FAILED = "FAILED"
CANCELLING = "CANCELLING"
CANCELLED = "CANCELLED"
PAUSING = "PAUSING"
"""Its trainer writes a checkpoint and stops."""
PAUSED = "PAUSED"
RESUMING = "RESUMING"
"""Asked to go on; what its last attempt left is cleared away before it queues again."""
DELETING = "DELETING"

QUEUED = (CREATING, RESUMING, PENDING)
AT_WORK = (RUNNING, RE_QUEUEING)
PAUSABLE = (*QUEUED, *AT_WORK)
CANCELLABLE = (*PAUSABLE, PAUSING, PAUSED)
BEFORE_THE_END = (*PAUSABLE, WRITING_RESULTS)
ACTIVE = (*CANCELLABLE, WRITING_RESULTS, CANCELLING)
"""What such a job reads cannot be deleted, and nobody else makes a model of the same name."""
ENDED = (COMPLETED, EARLY_STOPPED, FAILED, CANCELLED, DELETING)
PLACED = (*AT_WORK, PAUSING, CANCELLING)
"""Such a job has one of the trainers' places."""
LEAVING = (RESUMING, DELETING)
"""Such a job has one as long as its last trainer may be at work."""

_OUT_OF_QUEUE = frozenset({FAILED, PAUSING, CANCELLING, DELETING})
TRANSITIONS: dict[str, frozenset[str]] = {
    CREATING: _OUT_OF_QUEUE | {PENDING},
    RESUMING: _OUT_OF_QUEUE | {PENDING},
    PENDING: _OUT_OF_QUEUE | {RUNNING},
    RUNNING: frozenset({RE_QUEUEING, WRITING_RESULTS, FAILED, PAUSING, CANCELLING, DELETING}),
    RE_QUEUEING: frozenset({RUNNING, WRITING_RESULTS, FAILED, PAUSING, CANCELLING, DELETING}),
    WRITING_RESULTS: frozenset({COMPLETED, EARLY_STOPPED, FAILED, DELETING}),
    COMPLETED: frozenset({DELETING}),
    EARLY_STOPPED: frozenset({DELETING}),
    FAILED: frozenset({RESUMING, DELETING}),
    CANCELLING: frozenset({CANCELLED, DELETING}),
    CANCELLED: frozenset({RESUMING, DELETING}),
    PAUSING: frozenset({PAUSED, RESUMING, FAILED, CANCELLING, DELETING}),
    PAUSED: frozenset({RESUMING, CANCELLING, DELETING}),
    DELETING: frozenset(),
}

# What a failed job says of itself that no second try would change: its inputs or its settings.
HOPELESS_CODES = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION"})
HOPELESS_REASONS = frozenset({"ADAPTER_INVALID"})

# The enum that the newer job collections share has no names for these.
SHOWN = {PAUSING: RUNNING, RESUMING: PENDING}
# The older collection has six states of the original's, and PAUSED, which only who pauses a job gets to see.
SEED_NAMES = {
    **SHOWN,
    RE_QUEUEING: RUNNING,
    WRITING_RESULTS: RUNNING,
    EARLY_STOPPED: COMPLETED,
    CANCELLING: RUNNING,
    CANCELLED: FAILED,
}
SEED_STATES = ("STATE_UNSPECIFIED", *(state for state in TRANSITIONS if state not in SEED_NAMES))


def job_state(state: str) -> str:
    """The state's name in the enum that the newer job collections share."""
    return f"JOB_STATE_{SHOWN.get(state, state)}"


def can_resume(state: str, status_code: str, reason: str) -> bool:
    """Whether going on from the last checkpoint can end better than the job did."""
    if state == FAILED:
        return status_code not in HOPELESS_CODES and reason not in HOPELESS_REASONS
    return state in (CANCELLED, PAUSING, PAUSED)


def mark(row: Any, state: str, *, code: str = "OK", reason: str = "", message: str = "") -> None:
    """Move a job to `state`, with the reason; staying in a state only changes the reason."""
    if state != row.state and state not in TRANSITIONS[row.state]:
        raise ValueError(f"a fine-tuning job does not go from {row.state} to {state}")
    row.state, row.status_code, row.reason, row.status_message = state, code, reason, message
    if state not in (*PLACED, *LEAVING):
        row.place_time = None
    if state in ENDED:
        row.wandb_api_key = ""  # Nobody needs it any more, and it is not the platform's to keep.
