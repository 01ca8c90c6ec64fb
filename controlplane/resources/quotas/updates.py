"""Changing quotas: the account's admin up to what is allowed, the platform's operator what is allowed."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from controlplane.db import now
from controlplane.errors import invalid, not_found, permission_denied
from controlplane.names import ResourceName
from controlplane.resources.accounts.tables import AccountRow
from controlplane.resources.quotas.catalog import DEFAULTS, LARGEST, MONTHLY_SPEND
from controlplane.resources.quotas.limits import (
    Limit,
    lock_quota,
    platform_allowances,
    read_limit,
)
from controlplane.resources.quotas.schemas import Quota
from controlplane.resources.quotas.spend import note_suspensions
from controlplane.resources.quotas.tables import QuotaRow
from controlplane.resources.quotas.usage import usage_of
from controlplane.rest.masks import changes


async def find_quota(session: AsyncSession, name: ResourceName) -> Limit:
    if name.id not in platform_allowances(session):
        raise not_found(str(name))
    return await read_limit(session, name.account_id, name.id)


async def update_quota(session: AsyncSession, name: ResourceName, body: Quota, mask: str) -> Limit:
    """Set the value. A value below what is used refuses what is new, and takes nothing away."""
    await find_quota(session, name)
    await lock_quota(session, name.account_id, name.id)
    limit = await read_limit(session, name.account_id, name.id)
    changed = changes(session, body, mask, Quota.of(limit, 0.0))
    if "max_value" in changed:
        raise permission_denied(f"maxValue of {limit.name} is set by the platform's operator alone")
    if "value" not in changed:
        return limit
    if changed["value"] > limit.max_value:
        raise invalid(f"value {changed['value']:,} is more than maxValue {limit.max_value:,}", "value")
    await session.execute(stored(name.account_id, name.id, value=changed["value"]))
    if name.id == MONTHLY_SPEND:
        allowance = platform_allowances(session)[MONTHLY_SPEND]
        await session.run_sync(note_suspensions, allowance)
    return await read_limit(session, name.account_id, name.id)


async def quota_message(session: AsyncSession, limit: Limit) -> Quota:
    usage = await usage_of(session, limit.account_id)
    return Quota.of(limit, usage.get(limit.id, 0.0))


def set_max_value(
    session: Session, account_id: str, quota_id: str, max_value: int, value: int | None
) -> None:
    """What the operator allows one account, whatever the platform's default; `value` is set along."""
    if quota_id not in DEFAULTS:
        raise LookupError(f"there is no quota {quota_id}; quotas are {', '.join(DEFAULTS)}")
    if session.get(AccountRow, account_id) is None:
        raise LookupError(f"account {account_id} does not exist")
    if not 0 <= max_value <= LARGEST:
        raise ValueError(f"MAX must be 0 to {LARGEST}")
    if value is not None and not 0 <= value <= max_value:
        raise ValueError(f"the value must be 0 to {max_value}")
    given = {"max_value": max_value} if value is None else {"max_value": max_value, "value": value}
    session.execute(stored(account_id, quota_id, **given))


def stored(account_id: str, quota_id: str, **given: int) -> Any:
    """An upsert of these columns."""
    values = {**given, "update_time": now()}
    statement = insert(QuotaRow).values(account_id=account_id, id=quota_id, **values)
    return statement.on_conflict_do_update(index_elements=["account_id", "id"], set_=values)
