"""The states of a fine-tuning job, which may follow which, and what each collection calls them."""

from __future__ import annotations

from typing import Any

CREATING = "CREATING"
PENDING = "PENDING"
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
DELETING = "DELETING"

CANCELLABLE = (CREATING, PENDING, RUNNING, RE_QUEUEING)
BEFORE_THE_END = (*CANCELLABLE, WRITING_RESULTS)
ACTIVE = (*BEFORE_THE_END, CANCELLING)
"""What such a job reads cannot be deleted, and nobody else makes a model of the same name."""
PLACED = (RUNNING, RE_QUEUEING, CANCELLING)
"""Such a job has one of the trainers' places."""

TRANSITIONS: dict[str, frozenset[str]] = {
    CREATING: frozenset({PENDING, FAILED, CANCELLING, DELETING}),
    PENDING: frozenset({RUNNING, FAILED, CANCELLING, DELETING}),
    RUNNING: frozenset({RE_QUEUEING, WRITING_RESULTS, FAILED, CANCELLING, DELETING}),
    RE_QUEUEING: frozenset({RUNNING, WRITING_RESULTS, FAILED, CANCELLING, DELETING}),
    WRITING_RESULTS: frozenset({COMPLETED, EARLY_STOPPED, FAILED, DELETING}),
    COMPLETED: frozenset({DELETING}),
    EARLY_STOPPED: frozenset({DELETING}),
    FAILED: frozenset({PENDING, DELETING}),
    CANCELLING: frozenset({CANCELLED, DELETING}),
    CANCELLED: frozenset({PENDING, DELETING}),
    DELETING: frozenset(),
}

# What a failed job says of itself that no second try would change: its inputs or its settings.
HOPELESS_CODES = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION"})
HOPELESS_REASONS = frozenset({"ADAPTER_INVALID"})

# The older collection knows six states only.
SEED_NAMES = {
    RE_QUEUEING: RUNNING,
    WRITING_RESULTS: RUNNING,
    EARLY_STOPPED: COMPLETED,
    CANCELLING: RUNNING,
    CANCELLED: FAILED,
}
SEED_STATES = ("STATE_UNSPECIFIED", *(state for state in TRANSITIONS if state not in SEED_NAMES))


def job_state(state: str) -> str:
    """The state's name in the enum that the newer job collections share."""
    return f"JOB_STATE_{state}"


def can_resume(state: str, status_code: str, reason: str) -> bool:
    """Whether going on from the last checkpoint can end better than the job did."""
    if state == FAILED:
        return status_code not in HOPELESS_CODES and reason not in HOPELESS_REASONS
    return state == CANCELLED


def mark(row: Any, state: str, *, code: str = "OK", reason: str = "", message: str = "") -> None:
    """Move a job to `state`, with the reason; staying in a state only changes the reason."""
    if state != row.state and state not in TRANSITIONS[row.state]:
        raise ValueError(f"a fine-tuning job does not go from {row.state} to {state}")
    row.state, row.status_code, row.reason, row.status_message = state, code, reason, message
