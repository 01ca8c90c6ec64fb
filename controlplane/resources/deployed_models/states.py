"""The states of a deployed model, and which may follow which."""

from __future__ import annotations

from typing import Any

DEPLOYING = "DEPLOYING"
DEPLOYED = "DEPLOYED"
UPDATING = "UPDATING"
UNDEPLOYING = "UNDEPLOYING"

TRANSITIONS: dict[str, frozenset[str]] = {
    DEPLOYING: frozenset({DEPLOYED, UNDEPLOYING}),
    DEPLOYED: frozenset({UPDATING, UNDEPLOYING}),
    UPDATING: frozenset({DEPLOYED, UNDEPLOYING}),
    UNDEPLOYING: frozenset(),
}
STATES = ("STATE_UNSPECIFIED", *TRANSITIONS)


def mark(row: Any, state: str, *, code: str = "OK", reason: str = "", message: str = "") -> None:
    """Move a deployed model to `state`, with the reason; staying in a state only changes the reason."""
    if state != row.state and state not in TRANSITIONS[row.state]:
        raise ValueError(f"a deployed model does not go from {row.state} to {state}")
    row.state, row.status_code, row.reason, row.status_message = state, code, reason, message
