"""The month's spend, and what an account may not do any more when it has reached its quota."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from controlplane.db import now
from controlplane.prices import NANOS, in_dollars
from controlplane.resources.accounts.tables import AccountRow
from controlplane.resources.ledger.entries import month_of
from controlplane.resources.ledger.tables import SpendRow
from controlplane.resources.quotas.catalog import MONTHLY_SPEND, Allowance
from controlplane.resources.quotas.limits import (
    SHOWN_NAMES,
    Limit,
    limit_for,
    read_limit,
    used_up,
    used_up_text,
)
from controlplane.resources.quotas.tables import QuotaRow

UNSUSPENDED = "UNSUSPENDED"
SUSPENDED = "MONTHLY_SPEND_LIMIT_EXCEEDED"


def is_overspent(limit: Limit, cost_nanos: int) -> bool:
    return cost_nanos >= limit.value * NANOS


async def spent(session: AsyncSession, account_id: str, month: date) -> int:
    """What the account's use in this month has cost so far, in nano-dollars."""
    query = spend_by_account(month).where(SpendRow.account_id == account_id)
    found = (await session.execute(query)).one_or_none()
    return int(found[1]) if found else 0


def spend_by_account(month: date) -> Select[Any]:
    """(account, nano-dollars) of those that have spent anything."""
    account: Any = SpendRow.account_id
    return select(account, func.sum(SpendRow.cost_nanos)).where(SpendRow.month == month).group_by(account)


def dearest(month: date, account_ids: Sequence[str]) -> Select[Any]:
    """(account, resource, how many the account has) of what cost most, three for each account."""
    place = func.row_number().over(
        partition_by=SpendRow.account_id, order_by=(SpendRow.cost_nanos.desc(), SpendRow.resource)
    )
    count = func.count().over(partition_by=SpendRow.account_id)
    ranked = (
        select(SpendRow.account_id, SpendRow.resource, place.label("place"), count.label("count"))
        .where(SpendRow.month == month, SpendRow.account_id.in_(account_ids))
        .subquery()
    )
    columns = ranked.c.account_id, ranked.c.resource, ranked.c.count
    return select(*columns).where(ranked.c.place <= SHOWN_NAMES).order_by(ranked.c.account_id, ranked.c.place)


async def refuse_overspent(session: AsyncSession, account_id: str) -> None:
    """RESOURCE_EXHAUSTED once the month's spend has reached the account's quota."""
    month = month_of(now())
    limit = await read_limit(session, account_id, MONTHLY_SPEND)
    cost = await spent(session, account_id, month)
    if not is_overspent(limit, cost):
        return
    found = (await session.execute(dearest(month, [account_id]))).all()
    names, count = [row.resource for row in found], found[0].count if found else 0
    raise used_up(limit, *spend_words(limit, cost, month), names, count)


def overspent_text(limit: Limit, cost: int, month: date, users: Sequence[str], count: int) -> str:
    return used_up_text(limit, *spend_words(limit, cost, month), users, count)


def spend_words(limit: Limit, cost: int, month: date) -> tuple[str, str]:
    return f"${limit.value:,} in a month", f"{in_dollars(cost)} is spent in {month:%Y-%m}"


def overspent_accounts(session: Session, allowance: Allowance) -> dict[str, tuple[Limit, int]]:
    """(limit, nano-dollars) by account, of those that may spend no more this month."""
    found: dict[str, tuple[Limit, int]] = {}
    rows = {
        row.account_id: row for row in session.scalars(select(QuotaRow).where(QuotaRow.id == MONTHLY_SPEND))
    }
    costs = {account_id: int(cost) for account_id, cost in session.execute(spend_by_account(month_of(now())))}
    asked = costs.keys() | rows.keys()
    if allowance.value == 0:  # a quota of nothing is used up by nothing
        asked |= set(session.scalars(select(AccountRow.id)))
    for account_id in asked:
        limit = limit_for(account_id, MONTHLY_SPEND, allowance, rows.get(account_id))
        if is_overspent(limit, costs.get(account_id, 0)):
            found[account_id] = limit, costs.get(account_id, 0)
    return found


def note_suspensions(session: Session, allowance: Allowance) -> None:
    """Have exactly the accounts say so that have spent what they may.

    Only for whoever looks at an account: what is refused, is refused by the spend itself. What an account
    says for another reason stays.
    """
    over = AccountRow.id.in_(overspent_accounts(session, allowance))
    for which, before, after in ((over, UNSUSPENDED, SUSPENDED), (~over, SUSPENDED, UNSUSPENDED)):
        change = update(AccountRow).where(which, AccountRow.suspend_state == before)
        kept = {"suspend_state": after, "update_time": AccountRow.update_time}
        session.execute(change.values(**kept), execution_options={"synchronize_session": False})
