"""What accounts may use, as the gateway knows it: read about once a second, never while a request waits."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.db import AsyncDatabase
from controlplane.resources.accounts.states import MONTHLY_SPEND_LIMIT_EXCEEDED, UNSUSPENDED
from controlplane.resources.ledger.entries import month_of
from controlplane.resources.quotas.catalog import (
    DEFAULTS,
    GENERATED_TOKENS_A_MINUTE,
    MONTHLY_SPEND,
    PROMPT_TOKENS_A_MINUTE,
    REQUESTS_A_MINUTE,
    STORED_RESPONSE_BYTES,
    STORED_RESPONSES,
    Allowance,
)
from controlplane.resources.quotas.limits import Limit, limit_for
from controlplane.resources.quotas.spend import dearest, overspent_accounts, overspent_text
from controlplane.resources.quotas.tables import QuotaRow
from controlplane.resources.tables import AccountRow
from gateway.errors import GatewayError

TOKEN_QUOTAS = {"prompt": PROMPT_TOKENS_A_MINUTE, "generated": GENERATED_TOKENS_A_MINUTE}
OF_GATEWAYS = (REQUESTS_A_MINUTE, *TOKEN_QUOTAS.values(), STORED_RESPONSES, STORED_RESPONSE_BYTES)


@dataclass(frozen=True)
class AccountLimits:
    """The picture of one moment. The month's spend tells nothing of another month."""

    month: date
    overspent: Mapping[str, str] = field(default_factory=dict)
    """Why nothing more is answered, by account."""
    quotas: Mapping[tuple[str, str], Limit] = field(default_factory=dict)
    """What is allowed, by account and quota, where it differs from the platform's own."""
    allowances: Mapping[str, Allowance] = field(default_factory=lambda: DEFAULTS)
    suspended: Mapping[str, str] = field(default_factory=dict)
    """Why, by account; but for the spend, which counts by the month."""
    _usual: dict[tuple[str, str], Limit] = field(default_factory=dict, init=False, compare=False)
    """The platform's own quotas, for accounts that have asked."""
    _tokens: dict[str, dict[str, Limit]] = field(default_factory=dict, init=False, compare=False)

    def requests_a_minute(self, account_id: str) -> Limit:
        return self._limit(account_id, REQUESTS_A_MINUTE)

    def tokens_a_minute(self, account_id: str) -> dict[str, Limit]:
        """By kind of token, as `token_rate` names them."""
        found = self._tokens.get(account_id)
        if found is None:
            found = {kind: self._limit(account_id, quota) for kind, quota in TOKEN_QUOTAS.items()}
            self._tokens[account_id] = found
        return found

    def stored(self, account_id: str) -> tuple[Limit, Limit]:
        """How many responses may be stored, and how many bytes of them."""
        return self._limit(account_id, STORED_RESPONSES), self._limit(account_id, STORED_RESPONSE_BYTES)

    def _limit(self, account_id: str, quota: str) -> Limit:
        found = self.quotas.get((account_id, quota)) or self._usual.get((account_id, quota))
        if found is None:
            found = limit_for(account_id, quota, self.allowances[quota], None)
            self._usual[account_id, quota] = found
        return found

    def refuse_suspended(self, account_id: str) -> None:
        """402 for an account that somebody has suspended."""
        if account_id in self.suspended:
            reason = self.suspended[account_id].lower().replace("_", " ")
            raise GatewayError(
                402,
                "FAILED_PRECONDITION",
                f"accounts/{account_id} is suspended: {reason}",
                kind="insufficient_quota",
                headers={"Retry-After": "60", "x-should-retry": "false"},
            )

    def refuse_overspent(self, account_id: str, moment: datetime | None = None) -> None:
        """429 for an account that has spent what it may in this month."""
        text = self.overspent.get(account_id)
        if text is not None and month_of(moment or datetime.now(UTC)) == self.month:
            raise GatewayError(
                429,
                "RESOURCE_EXHAUSTED",
                text,
                kind="insufficient_quota",
                headers={"Retry-After": str(_until_next_month(moment)), "x-should-retry": "false"},
            )


def _until_next_month(moment: datetime | None) -> int:
    """Seconds."""
    now = moment or datetime.now(UTC)
    start = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return max(1, math.ceil((start - now).total_seconds()))


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
    rows = session.scalars(select(QuotaRow).where(QuotaRow.id.in_(OF_GATEWAYS)))
    limits = [limit_for(row.account_id, row.id, allowances[row.id], row) for row in rows]
    quotas = {(limit.account_id, limit.id): limit for limit in limits}
    suspended = select(AccountRow.id, AccountRow.suspend_state).where(
        AccountRow.suspend_state.not_in((UNSUSPENDED, MONTHLY_SPEND_LIMIT_EXCEEDED))
    )
    reasons = dict(session.execute(suspended).tuples().all())
    return AccountLimits(month, texts, quotas, allowances, reasons)
