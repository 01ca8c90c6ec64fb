"""API keys and callers: who is asking, and on behalf of which account."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import ApiError, Code
from controlplane.permissions import ADMIN, Grant
from controlplane.resources.tables import AccountRow, ApiKeyRow, UserRow

KEY_PREFIX = "fw_"
SHOWN_PREFIX_LENGTH = 8


@dataclass(frozen=True)
class Call:
    """What the audit log and `If-Match` want to know of the request at hand."""

    action: str
    """The method's name, such as `create_model`."""
    resource: str
    query: str
    client_address: str
    if_match: str
    body: Any
    """The JSON that was sent; None without one."""


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

    @property
    def is_admin(self) -> bool:
        return self.role == ADMIN


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


async def find_caller(session: AsyncSession, key: str) -> Caller:
    """The caller whose key this is, or 401 when it is unknown, expired, or its user is being deleted."""
    query = (
        select(ApiKeyRow, UserRow)
        .join(UserRow, UserRow.uid == ApiKeyRow.user_uid)
        .join(AccountRow, AccountRow.id == ApiKeyRow.account_id)
        .where(ApiKeyRow.key_hash == hash_key(key), UserRow.state == "READY", AccountRow.state == "READY")
    )
    found = (await session.execute(query)).one_or_none()
    if found is None:
        raise unauthenticated("the API key is not valid")
    key_row, user = found
    if key_row.expire_time is not None and key_row.expire_time <= datetime.now(UTC):
        raise unauthenticated("the API key has expired")
    return Caller(key_row.account_id, user.id, user.role, key_row.uid, key_row.key_id, user.email)
