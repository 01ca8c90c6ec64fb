"""API keys and callers: who is asking, and on behalf of which account."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.errors import ApiError, Code
from controlplane.permissions import Grant
from controlplane.resources.identity_providers.enforcement import refused_key
from controlplane.resources.tables import AccountRow, ApiKeyRow, UserRow

KEY_PREFIX = "fw_"
SHOWN_PREFIX_LENGTH = 8
USE_NOTED_EVERY = timedelta(minutes=1)
"""How exact `lastUsed` of a key is."""


@dataclass(frozen=True)
class Call:
    """What the audit log and `If-Match` want to know of the request at hand."""

    action: str
    """The method's name, such as `CreateModel`."""
    resource: str
    query: str
    client_address: str
    if_match: str
    body: Any
    """The JSON that was sent; None without one."""
    message: Any = None
    """The class that the JSON is read as."""


@dataclass(frozen=True)
class Caller:
    """An authenticated user of an account, and what the request at hand may do."""

    account_id: str
    user_id: str
    role: str
    key_uid: uuid.UUID
    key_id: str
    email: str
    grant: Grant = Grant.NO
    """How far the permission that the request needs reaches for this user."""
    call: Call | None = None


def generate_key() -> str:
    """A new key: 192 random bits, so that its plain SHA-256 is safe to look it up by."""
    return KEY_PREFIX + secrets.token_urlsafe(24)


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_credential(authorization: str | None, x_api_key: str | None) -> str:
    """The key of `Authorization: Bearer …` or `X-Api-Key: …`, or 401."""
    if authorization:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "bearer" and value.strip():
            return value.strip()
        raise unauthenticated("the Authorization header must read: Bearer <api key>")
    if x_api_key:
        return x_api_key.strip()
    raise unauthenticated("no API key: send the header Authorization: Bearer <api key>")


def unauthenticated(message: str) -> ApiError:
    return ApiError(Code.UNAUTHENTICATED, message, headers={"WWW-Authenticate": "Bearer"})


def valid_keys(*columns: Any) -> Select[Any]:
    """Columns of the keys whose user and account are in good standing: the one rule of who may call.

    A person who has to sign in calls with the token of that and with no other key.
    Whether a key has expired is for the reader to see, who may hold the row for a while.
    """
    return (
        select(*columns)
        .select_from(ApiKeyRow)
        .join(UserRow, UserRow.uid == ApiKeyRow.user_uid)
        .join(AccountRow, AccountRow.id == ApiKeyRow.account_id)
        .where(UserRow.state == "READY", AccountRow.state == "READY", ~refused_key())
    )


# Columns, not objects, and put together once: every request asks this.
_BY_HASH = valid_keys(
    ApiKeyRow.account_id,
    UserRow.id,
    UserRow.role,
    ApiKeyRow.uid,
    ApiKeyRow.key_id,
    UserRow.email,
    ApiKeyRow.expire_time,
    ApiKeyRow.last_used,
).where(ApiKeyRow.key_hash == bindparam("hash"))


async def find_caller(connection: AsyncConnection, key: str) -> Caller:
    """The caller whose key this is, or 401 when it is unknown, expired, or its user is being deleted."""
    found = (await connection.execute(_BY_HASH, {"hash": hash_key(key)})).one_or_none()
    if found is None:
        raise unauthenticated(await _why_not(connection, key))
    *who, expire_time, last_used = found
    caller, moment = Caller(*who), datetime.now(UTC)
    if expire_time is not None and expire_time <= moment:
        raise unauthenticated("the API key has expired")
    if last_used is None or last_used < moment - USE_NOTED_EVERY:
        await note_use(connection, caller.key_uid, moment)
    return caller


async def _why_not(connection: AsyncConnection, key: str) -> str:
    """Why a key is refused, as far as somebody who holds it may know."""
    query = (
        select(ApiKeyRow.account_id)
        .join(UserRow, UserRow.uid == ApiKeyRow.user_uid)
        .where(ApiKeyRow.key_hash == hash_key(key), refused_key())
    )
    account_id = await connection.scalar(query)
    if account_id is None:
        return "the API key is not valid"
    return f"accounts/{account_id} asks you to sign in instead of using a key: firectl signin {account_id}"


async def note_use(connection: AsyncConnection, key_uid: uuid.UUID, moment: datetime) -> None:
    """Write when a key was last used, unless somebody does so just now: no request waits for that."""
    free = (
        select(ApiKeyRow.uid)
        .where(
            ApiKeyRow.uid == key_uid,
            or_(ApiKeyRow.last_used.is_(None), ApiKeyRow.last_used < moment - USE_NOTED_EVERY),
        )
        .with_for_update(key_share=True, skip_locked=True)
    )
    noted = update(ApiKeyRow).where(ApiKeyRow.uid == free.scalar_subquery()).values(last_used=moment)
    await connection.execute(noted)
