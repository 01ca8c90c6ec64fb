from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import SHOWN_PREFIX_LENGTH, Caller, generate_key, hash_key
from controlplane.errors import failed_precondition, invalid, not_found, permission_denied
from controlplane.names import ResourceName, generate_id
from controlplane.permissions import Grant
from controlplane.resources.api_keys.schemas import LIMITS, ApiKey
from controlplane.resources.api_keys.tables import ApiKeyRow
from controlplane.resources.identity_providers.enforcement import must_sign_in
from controlplane.resources.users.tables import UserRow
from controlplane.rest.access import CREATED, find, insert


async def keys_owner(session: AsyncSession, caller: Caller, account_id: str, user_id: str) -> UserRow:
    """The user whose keys are meant: users see their own, admins everybody's."""
    if user_id != caller.user_id and caller.grant is not Grant.YES:
        raise permission_denied("only an admin may see or change the keys of other users")
    return await find(session, UserRow, ResourceName(account_id, "users", user_id))


async def create_key(
    session: AsyncSession, caller: Caller, user: UserRow, body: ApiKey
) -> tuple[ApiKeyRow, str]:
    """A key for a user. Those of service accounts are made by admins."""
    if user.service_account and caller.grant is not Grant.YES:
        raise permission_denied("only an admin may create keys of service accounts")
    if await session.scalar(select(UserRow.uid).where(UserRow.uid == user.uid, must_sign_in())):
        raise failed_precondition(
            f"keys of {user.email} do not work: the identity provider of this domain has enforceSso, so that "
            "its people sign in; a program gets a key of a service account"
        )
    row, key = new_key(user, body)
    name = session.info[CREATED] = key_name(user, row.key_id)
    await insert(session, row, name)
    return row, key


def keys_of_account(account_id: str) -> Select[Any]:
    """The keys of all its users. Access tokens of signed-in people are none."""
    return select(ApiKeyRow).where(ApiKeyRow.account_id == account_id, ApiKeyRow.session_uid.is_(None))


def keys_of_user(user: UserRow) -> Select[Any]:
    return keys_of_account(user.account_id).where(ApiKeyRow.user_uid == user.uid)


def key_name(user: UserRow, key_id: str) -> str:
    return f"accounts/{user.account_id}/users/{user.id}/apiKeys/{key_id}"


async def owners(session: AsyncSession, keys: Sequence[ApiKeyRow]) -> dict[uuid.UUID, UserRow]:
    """The users of these keys, by uid."""
    found = await session.scalars(select(UserRow).where(UserRow.uid.in_({key.user_uid for key in keys})))
    return {user.uid: user for user in found}


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
        annotations=given.get("annotations", {}),
        expire_time=expires,
        **{name: given.get(name) for name in LIMITS},
    )
    return row, key


async def delete_key(session: AsyncSession, keys: Select[Any], key_id: str) -> None:
    """Delete that one of `keys`; from then on it is refused, by the gateways within seconds."""
    row: ApiKeyRow | None = await session.scalar(keys.where(ApiKeyRow.key_id == key_id))
    if row is None:
        raise not_found(f"API key {key_id!r}")
    user = await session.get_one(UserRow, row.user_uid)
    session.info[CREATED] = key_name(user, row.key_id)
    await session.delete(row)
