"""Reservations as the operator makes them, and how many GPUs they give an account at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from controlplane.db import now
from controlplane.names import check_id, generate_id
from controlplane.resources.accounts.tables import AccountRow
from controlplane.resources.deployments.accelerators import ACCELERATOR_TYPES
from controlplane.resources.reservations.tables import ReservationRow

LARGEST_COUNT = 1_000_000
STATES = ("STATE_UNSPECIFIED", "ACTIVE", "EXPIRED")


@dataclass(frozen=True)
class WantedReservation:
    """What the operator says of a new reservation."""

    account_id: str
    accelerator_type: str
    reserved_count: int
    id: str = ""
    display_name: str = ""
    description: str = ""
    region: str = ""
    multi_region: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None


def create_reservation(session: Session, wanted: WantedReservation, created_by: str) -> ReservationRow:
    """A new reservation: from the next midnight in UTC, for a year, unless times are given."""
    if session.get(AccountRow, wanted.account_id) is None:
        raise LookupError(f"account {wanted.account_id} does not exist")
    start = wanted.start_time or next_midnight(now())
    end = wanted.end_time or a_year_after(start)
    check_reservation(wanted, start, end)
    row = ReservationRow(
        account_id=wanted.account_id,
        id=check_id(wanted.id or generate_id(), "reservation id"),
        display_name=wanted.display_name,
        description=wanted.description,
        created_by=created_by,
        accelerator_type=wanted.accelerator_type,
        reserved_count=wanted.reserved_count,
        region=wanted.region,
        multi_region=wanted.multi_region,
        start_time=start,
        end_time=end,
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError:
        raise ValueError(f"{row.name} already exists") from None
    return row


def end_now(session: Session, account_id: str, reservation_id: str) -> None:
    """End a reservation before its time."""
    query = select(ReservationRow).where(
        ReservationRow.account_id == account_id, ReservationRow.id == reservation_id
    )
    row = session.scalar(query.with_for_update())
    if row is None:
        raise LookupError(f"accounts/{account_id}/reservations/{reservation_id} does not exist")
    row.end_time = min(row.end_time, now())
    row.start_time = min(row.start_time, row.end_time)


def check_reservation(wanted: WantedReservation, start: datetime, end: datetime) -> None:
    if wanted.accelerator_type not in ACCELERATOR_TYPES:
        raise ValueError(f"{wanted.accelerator_type!r} is none of {', '.join(ACCELERATOR_TYPES)}")
    if not 1 <= wanted.reserved_count <= LARGEST_COUNT:
        raise ValueError(f"the count must be 1 to {LARGEST_COUNT:,}")
    if wanted.region and wanted.multi_region:
        raise ValueError("a reservation is for a region or for a multi-region, not for both")
    if start >= end:
        raise ValueError(f"it would end at {end.isoformat()}, before it starts at {start.isoformat()}")


def next_midnight(moment: datetime) -> datetime:
    return datetime.combine(moment.astimezone(UTC).date() + timedelta(days=1), time(), UTC)


def a_year_after(moment: datetime) -> datetime:
    """The same day a year later; the 28th for a leap day."""
    try:
        return moment.replace(year=moment.year + 1)
    except ValueError:
        return moment.replace(year=moment.year + 1, day=28)


def active_between(account_id: str, accelerator_type: str, start: datetime, end: datetime) -> Select[Any]:
    """The account's reservations of these GPUs that are active at some moment from `start` until `end`."""
    return select(ReservationRow).where(
        ReservationRow.account_id == account_id,
        ReservationRow.accelerator_type == accelerator_type,
        ReservationRow.start_time < end,
        ReservationRow.end_time > start,
    )


def reserved_at(reservations: Iterable[ReservationRow], moment: datetime) -> int:
    """How many GPUs these reservations give together at a moment."""
    return sum(r.reserved_count for r in reservations if r.start_time <= moment < r.end_time)


def state_at(row: ReservationRow, moment: datetime) -> str:
    """The original has no word for a reservation that has not begun."""
    if moment < row.start_time:
        return "STATE_UNSPECIFIED"
    return "ACTIVE" if moment < row.end_time else "EXPIRED"
