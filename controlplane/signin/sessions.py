"""Who is signed in: opaque tokens of our own, of which only hashes are stored.

An access token is a row of `api_keys` that expires and belongs to a session: it works wherever an API key
does. Refresh tokens have two halves. The first is the session's, the second changes with each use; who
comes with the first and an old second has a stolen token, or had one stolen, and the session ends.
"""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import delete, func, update
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import KEY_PREFIX, SHOWN_PREFIX_LENGTH, hash_key
from controlplane.db import now
from controlplane.names import generate_id
from controlplane.resources.api_keys.tables import ApiKeyRow
from controlplane.resources.users.tables import UserRow
from controlplane.signin.tables import UserSessionRow

ACCESS_TIME = timedelta(hours=1)
UNRENEWED_TIME = timedelta(hours=12)
"""How long a session lasts when the provider cannot be asked whether its user is still there."""
LONGEST_TIME = timedelta(days=30)
OVERLAP = timedelta(minutes=1)
"""How long the access token before is still good: another request may be under way with it."""
ACCESS_PREFIX, REFRESH_PREFIX = KEY_PREFIX + "access_", KEY_PREFIX + "refresh_"
HALF = 32
"""Characters of each half of a refresh token: 192 random bits."""


@dataclass(frozen=True)
class Issued:
    """Fresh tokens, in nobody's hands but the caller's after this."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expire_time: datetime
    key: ApiKeyRow


async def begin(
    session: AsyncSession, user: UserRow, provider_uid: uuid.UUID, subject: str, provider_refresh_token: str
) -> Issued:
    """Sign the user in. The provider's token comes encrypted, and empty when there is none."""
    await purge(session)
    family, secret = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    row = UserSessionRow(
        uid=uuid.uuid4(),
        account_id=user.account_id,
        user_uid=user.uid,
        provider_uid=provider_uid,
        family_hash=hash_key(family),
        refresh_hash=hash_key(secret),
        subject=subject,
        provider_refresh_token=provider_refresh_token,
        expire_time=now() + (LONGEST_TIME if provider_refresh_token else UNRENEWED_TIME),
    )
    session.add(row)
    await session.flush()
    return _issue(session, row, family, secret)


async def rotate(
    session: AsyncSession, row: UserSessionRow, family: str, provider_refresh_token: str
) -> Issued:
    """New tokens of a session; the old refresh token is spent, and the old access token soon is."""
    soon = now() + OVERLAP
    of_session = ApiKeyRow.session_uid == row.uid
    await session.execute(delete(ApiKeyRow).where(of_session, ApiKeyRow.expire_time <= now()))
    await session.execute(
        update(ApiKeyRow).where(of_session).values(expire_time=func.least(ApiKeyRow.expire_time, soon))
    )
    secret = secrets.token_urlsafe(24)
    row.refresh_hash = hash_key(secret)
    row.refresh_time = now()
    row.provider_refresh_token = provider_refresh_token
    return _issue(session, row, family, secret)


async def end(session: AsyncSession, uid: uuid.UUID) -> None:
    """Sign out: the access tokens go with the session."""
    await session.execute(delete(UserSessionRow).where(UserSessionRow.uid == uid))


async def end_all_of_provider(session: AsyncSession, provider_uid: uuid.UUID) -> None:
    await session.execute(delete(UserSessionRow).where(UserSessionRow.provider_uid == provider_uid))


async def purge(session: AsyncSession) -> None:
    """Forget what nobody came back to."""
    await session.execute(delete(UserSessionRow).where(UserSessionRow.expire_time <= now()))


def split_refresh_token(token: str) -> tuple[str, str]:
    """The session's half and the newest one's; empty when it is not one of ours."""
    halves = token.removeprefix(REFRESH_PREFIX)
    if not token.startswith(REFRESH_PREFIX) or len(halves) != 2 * HALF:
        return "", ""
    return halves[:HALF], halves[HALF:]


def _issue(session: AsyncSession, row: UserSessionRow, family: str, secret: str) -> Issued:
    token = ACCESS_PREFIX + secrets.token_urlsafe(24)
    expire_time = min(now() + ACCESS_TIME, row.expire_time)
    key = ApiKeyRow(
        uid=uuid.uuid4(),
        account_id=row.account_id,
        user_uid=row.user_uid,
        key_id=generate_id(12),
        key_hash=hash_key(token),
        prefix=token[:SHOWN_PREFIX_LENGTH],
        display_name="signed in",
        expire_time=expire_time,
        session_uid=row.uid,
    )
    session.add(key)
    return Issued(token, f"{REFRESH_PREFIX}{family}{secret}", expire_time, key)
