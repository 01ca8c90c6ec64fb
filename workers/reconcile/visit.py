"""One visit to a row: claimed, worked at, given back. And what becomes of a row at which the work fails.

Nothing is tried for ever in a hurry. A visit that ends with an unforeseen error says so on the row and is
repeated with backoff; so is one whose worker died. After `TRIES` of either kind in a row the row is given up
with a clear status, where its kind can be given up.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from controlplane.observability.logs import facts
from controlplane.storage import StorageUnavailable
from workers.context import WorkerContext
from workers.observability.numbers import LEASES, ROUNDS
from workers.reconcile.backoff import backoff
from workers.reconcile.lease import Lease, LeaseLost, claim_lease, kept_alive

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=30)
AT_ONCE = timedelta(0)
WAIT_FOR_STORE = timedelta(seconds=5)
TRIES = 5

WAITING_FOR_STORE = "waiting for the object store, which cannot be reached now"
DIED = "workers that looked at it ended without a word"

Work = Callable[[WorkerContext, Lease], timedelta | None]
"""The work of one visit; returns after what time to look again (None: not until somebody asks)."""

GiveUp = Callable[[Any, str], bool]
"""Writes the end of a row that cannot be worked at, and why; False when it is to be tried on all the same."""


class Superseded(Exception):
    """The user changed the row after it was read: what was planned is for something else."""


def visit(context: WorkerContext, table: Any, uid: uuid.UUID, work: Work, give_up: GiveUp) -> bool:
    """Work at the row when it is due and nobody else is at it; whether that was so."""
    lease = claim_lease(context.db, table, uid, LEASE)
    if lease is None:
        return False
    with facts(resource=str(lease)), LEASES.labels(lease.kind).track_inprogress():
        try:
            if lease.claims <= TRIES or not _give_up(context, lease, give_up, DIED):
                _work(context, lease, work, give_up)
        except LeaseLost:
            log.warning("%s: the lease was lost; another worker has it, or the row is gone", lease)
            _count(lease, "lease_lost")
    return True


def _count(lease: Lease, outcome: str) -> None:
    ROUNDS.labels(lease.kind, outcome).inc()


def _work(context: WorkerContext, lease: Lease, work: Work, give_up: GiveUp) -> None:
    try:
        with kept_alive(context.db, lease):
            next_after = work(context, lease)
        _release(context, lease, next_after)
        _count(lease, "done")
    except LeaseLost:
        raise
    except Superseded:
        _release(context, lease, AT_ONCE)
        _count(lease, "superseded")
    except StorageUnavailable as error:
        log.warning("%s waits for the object store: %s", lease, error)
        _release(context, lease, WAIT_FOR_STORE, WAITING_FOR_STORE)
        _count(lease, "store_away")
    except Exception as error:
        log.exception("%s: try %d of %d failed", lease, lease.claims, TRIES)
        cause = f"an internal error ({type(error).__name__})"
        if lease.claims < TRIES or not _give_up(context, lease, give_up, cause):
            _try_again(context, lease, f"{cause}; it is tried again")
            _count(lease, "failed")


def _give_up(context: WorkerContext, lease: Lease, give_up: GiveUp, cause: str) -> bool:
    with context.db.session() as session:
        given_up = give_up(
            lease.guard(session), f"{cause}, {TRIES} times in a row; the worker's log has more"
        )
        if given_up:
            lease.release(session, AT_ONCE)
    if given_up:
        _count(lease, "given_up")
    return given_up


def _try_again(context: WorkerContext, lease: Lease, message: str) -> None:
    with context.db.session() as session:
        lease.guard(session).status_message = message
        session.flush()
        lease.release(session, backoff(lease.claims), failed=True)


def _release(
    context: WorkerContext, lease: Lease, next_after: timedelta | None, message: str | None = None
) -> None:
    with context.db.session() as session:
        if message is not None:
            lease.guard(session).status_message = message
            session.flush()
        lease.release(session, next_after)
