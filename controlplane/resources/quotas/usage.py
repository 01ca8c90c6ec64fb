"""How much of each quota an account uses now."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.db import now
from controlplane.prices import NANOS
from controlplane.resources.datasets.tables import DatasetRow
from controlplane.resources.deployments.accelerators import ACCELERATOR_TYPES
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.ledger.entries import INFERENCE, month_of
from controlplane.resources.ledger.tables import LedgerRow
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.quotas.catalog import (
    DATASETS,
    DEPLOYED_ADDONS,
    GENERATED_TOKENS_A_MINUTE,
    MODELS,
    MONTHLY_SPEND,
    PROMPT_TOKENS_A_MINUTE,
    REQUESTS_A_MINUTE,
    RUNNING_JOBS,
    STORED_RESPONSE_BYTES,
    STORED_RESPONSES,
    accelerator_quota,
)
from controlplane.resources.quotas.service import (
    count_of,
    deployed_addons,
    holders,
    own_rows,
    reserved_now,
)
from controlplane.resources.quotas.spend import spent
from controlplane.resources.responses.tables import ResponseRow

MINUTE = timedelta(minutes=1)


async def usage_of(session: AsyncSession, account_id: str) -> dict[str, float]:
    """By quota id; what is not there is not used."""
    return {
        MODELS: await count_of(session, own_rows(ModelRow, account_id)),
        DATASETS: await count_of(session, own_rows(DatasetRow, account_id)),
        DEPLOYED_ADDONS: await count_of(session, deployed_addons(account_id)),
        RUNNING_JOBS: await count_of(session, running_jobs(account_id)),
        MONTHLY_SPEND: await spent(session, account_id, month_of(now())) / NANOS,
        **await recent_inference(session, account_id),
        **await stored_responses(session, account_id),
        **await on_demand_accelerators(session, account_id),
    }


def running_jobs(account_id: str) -> Select[Any]:
    return own_rows(FineTuningJobRow, account_id).where(FineTuningJobRow.has_place())


async def recent_inference(session: AsyncSession, account_id: str) -> dict[str, float]:
    """Requests to deployments of others that were answered within the last minute, and their tokens."""
    sums = (func.sum(LedgerRow.prompt_tokens), func.sum(LedgerRow.completion_tokens))
    query = select(func.count(), *sums).where(
        LedgerRow.account_id == account_id,
        LedgerRow.create_time > now() - MINUTE,
        LedgerRow.owner_id != account_id,
        LedgerRow.product == INFERENCE,
    )
    counted = (await session.execute(query)).one()
    quotas = (REQUESTS_A_MINUTE, PROMPT_TOKENS_A_MINUTE, GENERATED_TOKENS_A_MINUTE)
    return {quota: int(count or 0) for quota, count in zip(quotas, counted, strict=True)}


async def stored_responses(session: AsyncSession, account_id: str) -> dict[str, float]:
    query = select(func.count(), func.sum(ResponseRow.size)).where(ResponseRow.account_id == account_id)
    count, size = (await session.execute(query)).one()
    return {STORED_RESPONSES: count, STORED_RESPONSE_BYTES: int(size or 0)}


async def on_demand_accelerators(session: AsyncSession, account_id: str) -> dict[str, float]:
    held: Counter[str] = Counter()
    for _, found in await holders(session, account_id):
        held[found.accelerator_type] += found.accelerators
    for kind in ACCELERATOR_TYPES:
        if held[kind]:
            held[kind] = max(held[kind] - await reserved_now(session, account_id, kind), 0)
    return {accelerator_quota(kind): count for kind, count in held.items() if count}
