"""The states of deployments and of their replicas, and which may follow which."""

from __future__ import annotations

from typing import Any

CREATING = "CREATING"
READY = "READY"
UPDATING = "UPDATING"
FAILED = "FAILED"
DELETING = "DELETING"
DELETED = "DELETED"

LEAVING = (DELETING, DELETED)

TRANSITIONS: dict[str, frozenset[str]] = {
    CREATING: frozenset({READY, FAILED, DELETING}),
    READY: frozenset({UPDATING, FAILED, DELETING}),
    UPDATING: frozenset({READY, FAILED, DELETING}),
    FAILED: frozenset({UPDATING, DELETING}),
    DELETING: frozenset({DELETED}),
    DELETED: frozenset({CREATING}),
}

STATES = ("STATE_UNSPECIFIED", *TRANSITIONS)


class Replica:
    """The states of a replica: PENDING until its engine is started, STARTING while weights are staged,
    LOADING until it serves all that it should, READY while requests may be sent to it."""

    PENDING = "PENDING"
    STARTING = "STARTING"
    LOADING = "LOADING"
    READY = "READY"
    STOPPING = "STOPPING"
    FAILED = "FAILED"

    SERVING_OR_COMING = (PENDING, STARTING, LOADING, READY)


REPLICA_TRANSITIONS: dict[str, frozenset[str]] = {
    Replica.PENDING: frozenset({Replica.STARTING, Replica.FAILED, Replica.STOPPING}),
    Replica.STARTING: frozenset({Replica.LOADING, Replica.READY, Replica.FAILED, Replica.STOPPING}),
    Replica.LOADING: frozenset({Replica.READY, Replica.FAILED, Replica.STOPPING}),
    Replica.READY: frozenset({Replica.LOADING, Replica.FAILED, Replica.STOPPING}),
    Replica.STOPPING: frozenset({Replica.FAILED}),
    Replica.FAILED: frozenset(),
}


def mark(row: Any, state: str, *, code: str = "OK", reason: str = "", message: str = "") -> None:
    """Move a deployment to `state`, with the reason; staying in a state only changes the reason."""
    if state != row.state and state not in TRANSITIONS[row.state]:
        raise ValueError(f"a deployment does not go from {row.state} to {state}")
    row.state, row.status_code, row.reason, row.status_message = state, code, reason, message


def mark_replica(row: Any, state: str, now: Any, *, reason: str = "", message: str = "") -> None:
    """Move a replica to `state` and note when; staying in a state only changes the reason."""
    if state != row.state:
        if state not in REPLICA_TRANSITIONS[row.state]:
            raise ValueError(f"a replica does not go from {row.state} to {state}")
        row.state, row.state_time = state, now
    row.reason, row.message = reason, message
