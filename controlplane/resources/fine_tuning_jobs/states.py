"""The states of a fine-tuning job, and which may follow which."""

from __future__ import annotations

from typing import Any

CREATING = "CREATING"
PENDING = "PENDING"
RUNNING = "RUNNING"
COMPLETED = "COMPLETED"
FAILED = "FAILED"
DELETING = "DELETING"

ACTIVE = (CREATING, PENDING, RUNNING)

TRANSITIONS: dict[str, frozenset[str]] = {
    CREATING: frozenset({PENDING, FAILED, DELETING}),
    PENDING: frozenset({RUNNING, FAILED, DELETING}),
    RUNNING: frozenset({PENDING, COMPLETED, FAILED, DELETING}),
    COMPLETED: frozenset({DELETING}),
    FAILED: frozenset({DELETING}),
    DELETING: frozenset(),
}


def mark(row: Any, state: str, *, code: str = "OK", reason: str = "", message: str = "") -> None:
    """Move a job to `state`, with the reason; staying in a state only changes the reason."""
    if state != row.state and state not in TRANSITIONS[row.state]:
        raise ValueError(f"a fine-tuning job does not go from {row.state} to {state}")
    row.state, row.status_code, row.reason, row.status_message = state, code, reason, message
