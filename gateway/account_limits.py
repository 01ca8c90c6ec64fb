"""What accounts may use, as the gateway knows it: read about once a second, never while a request waits."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.db import AsyncDatabase
from controlplane.resources.ledger.entries import month_of
from controlplane.resources.quotas.catalog import DEFAULTS, MONTHLY_SPEND, REQUESTS_A_MINUTE, Allowance
from controlplane.resources.quotas.limits import Limit, limit_for
from controlplane.resources.quotas.spend import dearest, overspent_accounts, overspent_text
from controlplane.resources.quotas.tables import QuotaRow
from gateway.errors import GatewayError


@dataclass(frozen=True)
class AccountLimits:
    """The picture of one moment. The month's spend tells nothing of another month."""

    month: date
    overspent: Mapping[str, str] = field(default_factory=dict)
    """Why nothing more is answered, by account."""
    requests: Mapping[str, Limit] = field(default_factory=dict)
    """Requests a minute, of the accounts that differ from the platform's own quota."""
    allowances: Mapping[str, Allowance] = field(default_factory=lambda: DEFAULTS)

    def requests_a_minute(self, account_id: str) -> Limit:
        found = self.requests.get(account_id)
        return found or limit_for(account_id, REQUESTS_A_MINUTE, self.allowances[REQUESTS_A_MINUTE], None)

    def refuse_overspent(self, account_id: str, moment: datetime | None = None) -> None:
        """429 for an account that has spent what it may in this month."""
        text = self.overspent.get(account_id)
        if text is not None and month_of(moment or datetime.now(UTC)) == self.month:
            raise GatewayError(
                429,
                "RESOURCE_EXHAUSTED",
                text,
                kind="insufficient_quota",
                headers={"x-should-retry": "false"},
            )


NOTHING_KNOWN = AccountLimits(date.min)


async def read_account_limits(
    database: AsyncDatabase, allowances: Mapping[str, Allowance], seconds: float
) -> AccountLimits:
    """Raises when Postgres does not answer in time; what was read before is kept then."""
    async with asyncio.timeout(seconds), database.session() as session:
        return await session.run_sync(load_limits, allowances)


def load_limits(session: Session, allowances: Mapping[str, Allowance]) -> AccountLimits:
    month = month_of(datetime.now(UTC))
    over = overspent_accounts(session, allowances[MONTHLY_SPEND])
    users: defaultdict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = {}
    if over:
        for account_id, resource, count in session.execute(dearest(month, list(over))):
            users[account_id].append(resource)
            counts[account_id] = count
    texts = {
        account_id: overspent_text(limit, cost, month, users[account_id], counts.get(account_id, 0))
        for account_id, (limit, cost) in over.items()
    }
    rows = session.scalars(select(QuotaRow).where(QuotaRow.id == REQUESTS_A_MINUTE))
    allowance = allowances[REQUESTS_A_MINUTE]
    requests = {row.account_id: limit_for(row.account_id, row.id, allowance, row) for row in rows}
    return AccountLimits(month, texts, requests, allowances)
