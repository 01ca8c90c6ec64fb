"""An account's quotas as they are now, and the refusal when one is used up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import ApiError, Code
from controlplane.resources.quotas.catalog import DEFAULTS, Allowance
from controlplane.resources.quotas.tables import QuotaRow

ALLOWANCES = "allowances"
"""In a session's `info`: the platform's quotas by id; the catalogue's own when there is none."""
SHOWN_NAMES = 3
LOCK_SEED = 0x51554F54


# Put together once: every create asks this.
_HELD = select(
    func.pg_advisory_xact_lock(func.hashtextextended(bindparam("what"), LOCK_SEED)).label("held")
).subquery()
_LOCK = select(_HELD, QuotaRow).outerjoin_from(
    _HELD,
    QuotaRow,
    and_(QuotaRow.account_id == bindparam("account_id"), QuotaRow.id == bindparam("quota_id")),
)


@dataclass(frozen=True)
class Limit:
    """A quota of one account."""

    account_id: str
    id: str
    value: int
    max_value: int
    update_time: datetime | None = None

    @property
    def name(self) -> str:
        return f"accounts/{self.account_id}/quotas/{self.id}"


def limit_for(account_id: str, quota_id: str, allowance: Allowance, row: QuotaRow | None) -> Limit:
    """The platform's allowance with what the operator and the account's admin have set instead.

    The admin's value never goes beyond what the operator allows now.
    """
    if row is None:
        return Limit(account_id, quota_id, allowance.value, allowance.max_value)
    max_value = allowance.max_value if row.max_value is None else row.max_value
    value = allowance.value if row.value is None else row.value
    return Limit(account_id, quota_id, min(value, max_value), max_value, row.update_time)


def platform_allowances(session: AsyncSession) -> Mapping[str, Allowance]:
    found: Mapping[str, Allowance] = session.info.get(ALLOWANCES, DEFAULTS)
    return found


async def read_limit(session: AsyncSession, account_id: str, quota_id: str) -> Limit:
    row = await session.get(QuotaRow, (account_id, quota_id), populate_existing=True)
    return limit_for(account_id, quota_id, platform_allowances(session)[quota_id], row)


async def read_limits(session: AsyncSession, account_id: str) -> list[Limit]:
    """All quotas of the account, by id."""
    rows = await session.scalars(select(QuotaRow).where(QuotaRow.account_id == account_id))
    own = {row.id: row for row in rows}
    allowed = platform_allowances(session)
    return [limit_for(account_id, key, allowed[key], own.get(key)) for key in sorted(allowed)]


async def lock_quota(session: AsyncSession, account_id: str, quota_id: str) -> Limit:
    """Wait until nobody else is about to take of this quota; held until the transaction ends.

    Taken before the row is inserted that is to be counted: who holds it waits for nobody's uncommitted row.
    Returns the limit, read with the lock in one statement, as creates are to be quick: what an admin sets
    in this very moment may count from the next one on. Count in a statement after this one.
    """
    sent = {"what": f"{account_id}/{quota_id}", "account_id": account_id, "quota_id": quota_id}
    row = (await session.execute(_LOCK, sent)).one()[1]
    return limit_for(account_id, quota_id, platform_allowances(session)[quota_id], row)


def used_up(limit: Limit, most: str, used: str, users: Sequence[str], count: int) -> ApiError:
    """RESOURCE_EXHAUSTED that names the quota, its limit and what uses it.

    `most` and `used` end "at most …, and …"; `users` are some names of `count`.
    """
    text = used_up_text(limit, most, used, users, count)
    metadata = {"quota": limit.name, "limit": str(limit.value), "maxValue": str(limit.max_value)}
    details = quota_details(limit.account_id, text, metadata)
    # The published clients would try again: nothing changes until something is deleted or allowed.
    return ApiError(Code.RESOURCE_EXHAUSTED, text, details, headers={"x-should-retry": "false"})


def used_up_text(limit: Limit, most: str, used: str, users: Sequence[str], count: int) -> str:
    text = f"quota {limit.id} of accounts/{limit.account_id} is used up: at most {most}, and {used}"
    if users:
        text += f": {some_of(users, count)}"
    return f"{text}; {way_out(limit)}"


def some_of(names: Sequence[str], count: int) -> str:
    """Up to three names, and how many others there are."""
    shown = names[:SHOWN_NAMES]
    others = count - len(shown)
    ending = f" and {others:,} {'other' if others == 1 else 'others'}" if others > 0 else ""
    return ", ".join(shown) + ending


def way_out(limit: Limit) -> str:
    if limit.value < limit.max_value:
        return f"an admin of the account may raise the quota up to {limit.max_value:,}"
    return "the platform's operator may allow more"


def quota_details(account_id: str, text: str, metadata: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"subject": f"accounts/{account_id}", "description": text}],
        },
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "QUOTA_EXCEEDED",
            "domain": "hearth",
            "metadata": metadata,
        },
    ]
