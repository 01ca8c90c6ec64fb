"""Leases: who may change a row now. The database says so, never the broker.

A worker claims a row with a token and an expiry; a write is guarded by the token, so a worker that was
paused past its expiry, and lost the row to another, changes nothing.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import case, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from controlplane.db import Database

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The lease ran out and somebody else may own the row: stop, and change nothing."""


class Leased(Protocol):
    """A table with `LeaseColumns`."""

    uid: Any
    lease_token: Any
    lease_expires_at: Any
    next_reconcile_at: Any
    lease_claims: Any


@dataclass(frozen=True)
class Lease:
    table: Any
    uid: uuid.UUID
    token: uuid.UUID
    ttl: timedelta
    due_at: datetime
    """`next_reconcile_at` as it was when the row was claimed."""
    claims: int = 1
    """Claims in a row, with this one, of which none has ended well."""

    def __str__(self) -> str:
        return f"{self.kind} {self.uid}"

    @property
    def kind(self) -> str:
        return str(self.table.__tablename__)

    def guard(self, session: Session) -> Any:
        """The row, locked until the transaction ends; raises LeaseLost when it is no longer ours."""
        query = (
            select(self.table)
            .where(self.table.uid == self.uid, self.table.lease_token == self.token)
            .with_for_update()
        )
        row = session.scalar(query)
        if row is None:
            raise LeaseLost(str(self))
        return row

    def renew(self, session: Session) -> None:
        """Put the expiry off by the lease's full time; raises LeaseLost when it is no longer ours."""
        self.guard(session)
        self._write(session, lease_expires_at=func.now() + self.ttl)

    def release(self, session: Session, next_after: timedelta | None, *, failed: bool = False) -> None:
        """Give the row back, to be looked at again after `next_after` (None: not until somebody asks).

        A lost lease is left alone. What was asked for in the meantime is kept: `next_reconcile_at` moves
        only from what it was when the row was claimed. A visit that `failed` stays counted in `lease_claims`.
        """
        untouched = self.table.next_reconcile_at == self.due_at
        due = None if next_after is None else func.now() + next_after
        self._write(
            session,
            lease_token=None,
            lease_expires_at=None,
            lease_claims=self.table.lease_claims if failed else 0,
            next_reconcile_at=case((untouched, due), else_=self.table.next_reconcile_at),
        )

    def _write(self, session: Session, **values: Any) -> None:
        ours = (self.table.uid == self.uid) & (self.table.lease_token == self.token)
        # Leases come and go without the resource having changed: its update time stays.
        kept = {"update_time": self.table.update_time}
        statement = update(self.table).where(ours).values(**values, **kept)
        session.execute(statement, execution_options={"synchronize_session": False})


def claim_lease(database: Database, table: Any, uid: uuid.UUID, ttl: timedelta) -> Lease | None:
    """Claim a row, or None when it is gone, another worker holds it, or nothing is due."""
    token = uuid.uuid4()
    with database.session() as session:
        due = (
            select(table.uid)
            .where(
                table.uid == uid,
                table.next_reconcile_at <= func.now(),
                or_(table.lease_token.is_(None), table.lease_expires_at < func.now()),
            )
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        claimed = session.execute(
            update(table)
            .where(table.uid == due)
            .values(
                lease_token=token,
                lease_expires_at=func.now() + ttl,
                lease_claims=table.lease_claims + 1,
                update_time=table.update_time,
            )
            .returning(table.next_reconcile_at, table.lease_claims)
        ).one_or_none()
    return Lease(table, uid, token, ttl, *claimed) if claimed else None


def due_uids(session: Session, table: Any, limit: int) -> list[uuid.UUID]:
    """The rows that are due and that nobody holds, those waiting longest first."""
    query = (
        select(table.uid)
        .where(
            table.next_reconcile_at <= func.now(),
            or_(table.lease_token.is_(None), table.lease_expires_at < func.now()),
        )
        .order_by(table.next_reconcile_at)
        .limit(limit)
    )
    return list(session.scalars(query))


@contextmanager
def kept_alive(database: Database, lease: Lease) -> Iterator[None]:
    """Renew the lease from a thread while slow work goes on inside the block.

    A lease that is lost all the same shows at the guarded write that ends the work.
    """
    done = threading.Event()

    def renew() -> None:
        while not done.wait(lease.ttl.total_seconds() / 3):
            try:
                with database.session() as session:
                    lease.renew(session)
            except LeaseLost:
                return
            except SQLAlchemyError as error:
                log.warning("a lease of %s was not renewed: %s", lease.table.__tablename__, error)

    thread = threading.Thread(target=renew, name=f"lease-{lease.uid}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
