from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import SHOWN_PREFIX_LENGTH, Caller, generate_key, hash_key
from controlplane.errors import invalid, not_found, permission_denied
from controlplane.names import ResourceName, generate_id
from controlplane.permissions import Grant
from controlplane.resources.api_keys.schemas import ApiKey
from controlplane.resources.api_keys.tables import ApiKeyRow
from controlplane.resources.users.tables import UserRow
from controlplane.rest.access import find


async def keys_owner(session: AsyncSession, caller: Caller, account_id: str, user_id: str) -> UserRow:
    """The user whose keys are meant: users see their own, admins everybody's."""
    if user_id != caller.user_id and caller.grant is not Grant.YES:
        raise permission_denied("only an admin may see or change the keys of other users")
    return await find(session, UserRow, ResourceName(account_id, "users", user_id))


def new_key(user: UserRow, body: ApiKey) -> tuple[ApiKeyRow, str]:
    """A row and its key. The key is in nobody's hands but the caller's after this."""
    given = body.given()
    expires = given.get("expire_time")
    if expires is not None and expires <= datetime.now(UTC):
        raise invalid("expireTime lies in the past", "expireTime")
    key = generate_key()
    row = ApiKeyRow(
        account_id=user.account_id,
        user_uid=user.uid,
        key_id=generate_id(12),
        key_hash=hash_key(key),
        prefix=key[:SHOWN_PREFIX_LENGTH],
        display_name=given.get("display_name") or "default",
        expire_time=expires,
    )
    return row, key


async def delete_key(session: AsyncSession, user: UserRow, key_id: str) -> None:
    row = await session.scalar(
        select(ApiKeyRow).where(ApiKeyRow.user_uid == user.uid, ApiKeyRow.key_id == key_id)
    )
    if row is None:
        raise not_found(f"API key {key_id!r} of accounts/{user.account_id}/users/{user.id}")
    await session.delete(row)
