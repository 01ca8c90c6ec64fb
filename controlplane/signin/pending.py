"""Sign-ins under way: few, short-lived, and each good for one end."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import hash_key
from controlplane.db import now
from controlplane.errors import ApiError, Code
from controlplane.signin.tables import SignInRow

BROWSER_TIME = timedelta(minutes=10)
MOST_OF_AN_ADDRESS = 100
MOST_OF_A_PROVIDER = 1000


async def make_room(session: AsyncSession, provider_uid: uuid.UUID, client_address: str) -> None:
    """Forget what has expired; 429 when there are too many of this caller's, or of this provider's."""
    await session.execute(delete(SignInRow).where(SignInRow.expire_time <= now()))
    for condition, most in (
        (SignInRow.client_address == client_address, MOST_OF_AN_ADDRESS),
        (SignInRow.provider_uid == provider_uid, MOST_OF_A_PROVIDER),
    ):
        count = await session.scalar(select(func.count()).select_from(SignInRow).where(condition))
        if (count or 0) >= most:
            raise ApiError(
                Code.RESOURCE_EXHAUSTED,
                "too many sign-ins are under way; try again in some minutes",
                headers={"Retry-After": "60"},
            )


async def take(session: AsyncSession, state: str) -> SignInRow | None:
    """A sign-in in a browser, which ends with this, however it goes on; None when there is none."""
    query = delete(SignInRow).where(
        SignInRow.handle_hash == hash_key(state), SignInRow.device_code == "", SignInRow.expire_time > now()
    )
    return (await session.execute(query.returning(SignInRow))).scalar_one_or_none()


async def due_poll(session: AsyncSession, device_code: str) -> tuple[SignInRow | None, bool]:
    """A sign-in by device code, and whether it is time to ask the provider again, which counts as asked."""
    row = await session.scalar(
        select(SignInRow)
        .where(
            SignInRow.handle_hash == hash_key(device_code),
            SignInRow.device_code != "",
            SignInRow.expire_time > now(),
        )
        .with_for_update()
    )
    if row is None:
        return None, False
    moment = now()
    is_due = row.next_poll_time is None or row.next_poll_time <= moment
    if is_due:
        row.next_poll_time = _after(moment, row.interval)
    return row, is_due


async def slow_down(session: AsyncSession, uid: uuid.UUID, seconds: int) -> int:
    """Poll this many seconds slower from now on; returns the new interval."""
    row = await session.get(SignInRow, uid, with_for_update=True)
    if row is None:
        return seconds
    row.interval += seconds
    row.next_poll_time = _after(now(), row.interval)
    return row.interval


async def end(session: AsyncSession, uid: uuid.UUID) -> bool:
    """Forget a sign-in; False when somebody else ended it before."""
    found = await session.execute(delete(SignInRow).where(SignInRow.uid == uid).returning(SignInRow.uid))
    return found.one_or_none() is not None


def _after(moment: datetime, seconds: int) -> datetime:
    """A little early: the caller's clock began to wait a round trip before ours."""
    return moment + timedelta(seconds=max(seconds - 0.5, 0))
