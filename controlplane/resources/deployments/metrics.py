"""What the platform knows of a deployment's past: how it was used, and why its last replica ended."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import invalid
from controlplane.resources.deployments.states import Replica
from controlplane.resources.ledger.entries import INFERENCE
from controlplane.resources.tables import DeploymentRow, LedgerRow, ReplicaRow

DEFAULT_RANGE = timedelta(hours=1)
LONGEST_RANGE = timedelta(days=31)
RANGE = re.compile(r"([0-9]{1,9})([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Usage:
    """Requests that a deployment answered, and what they took in all."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    milliseconds: int = 0


async def usage_since(session: AsyncSession, row: DeploymentRow, since: datetime) -> Usage:
    """What was asked of this very deployment, by whichever account: not of an earlier one with its name."""
    found = await session.execute(
        select(
            func.count(),
            func.count().filter(LedgerRow.http_status >= 400),
            func.coalesce(func.sum(LedgerRow.prompt_tokens), 0),
            func.coalesce(func.sum(LedgerRow.cached_prompt_tokens), 0),
            func.coalesce(func.sum(LedgerRow.completion_tokens), 0),
            func.coalesce(func.sum(LedgerRow.duration_ms), 0),
        ).where(
            LedgerRow.product == INFERENCE,
            or_(
                LedgerRow.account_id == row.account_id,
                # As the index of others' use has it.
                and_(LedgerRow.owner_id == row.account_id, LedgerRow.owner_id != LedgerRow.account_id),
            ),
            LedgerRow.deployment == row.name,
            LedgerRow.create_time >= max(since, row.create_time),
        )
    )
    return Usage(*(int(value) for value in found.one()))


def read_range(given: str) -> timedelta:
    """`30m`, `1h`, `7d` or `3600s`; an hour when unset."""
    if not given:
        return DEFAULT_RANGE
    found = RANGE.fullmatch(given)
    length = timedelta(**{UNITS[found[2]]: int(found[1])}) if found else timedelta(0)
    if not timedelta(0) < length <= LONGEST_RANGE:
        raise invalid(
            f"timeRange {given!r} must be a length of time such as 30m, 1h, 7d or 3600s, "
            f"and at most {LONGEST_RANGE.days}d",
            "timeRange",
        )
    return length


def metrics(usage: Usage, replicas: int, seconds: float) -> dict[str, float]:
    """By the API's names. What cannot be told without a request is left out when there was none."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    found = {
        "REPLICA_COUNT": replicas,
        "REQUESTS_TOTAL": usage.requests,
        "REQUESTS_PER_SECOND": usage.requests / seconds,
        "TOKENS_PER_SECOND": tokens / seconds,
        "TOKENS_GENERATED_PER_SECOND": usage.completion_tokens / seconds,
    }
    if usage.requests:
        found["REQUESTS_ERROR_RATE"] = usage.errors / usage.requests
        found["TOKENS_PROMPT_PER_REQUEST"] = usage.prompt_tokens / usage.requests
        found["TOKENS_GENERATED_PER_REQUEST"] = usage.completion_tokens / usage.requests
        found["LATENCY"] = usage.milliseconds / 1000 / usage.requests
    if usage.prompt_tokens:
        found["PROMPT_CACHE_HIT_RATE"] = usage.cached_prompt_tokens / usage.prompt_tokens
    return found


async def termination_message(session: AsyncSession, row: DeploymentRow) -> str:
    """Why the replica that failed last did so; empty when none of those still known has."""
    query = (
        select(ReplicaRow.message)
        .where(
            ReplicaRow.deployment_uid == row.uid,
            ReplicaRow.reason != "",
            ReplicaRow.state.in_((Replica.STOPPING, Replica.FAILED)),
        )
        .order_by(ReplicaRow.state_time.desc())
        .limit(1)
    )
    return await session.scalar(query) or ""
