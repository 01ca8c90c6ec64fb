"""Inspections: asked for, waited for, and read. The control plane itself never reads a row of a dataset."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.context import Context
from controlplane.errors import ApiError, Code
from controlplane.prices import Prices
from controlplane.resources.fine_tuning_jobs.costs import Money
from controlplane.resources.fine_tuning_jobs.states import COMPLETED, EARLY_STOPPED
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.inspections.schemas import Estimate
from controlplane.resources.inspections.states import FAILED, PENDING, READY
from controlplane.resources.inspections.tables import InspectionRow

INSPECTED = ("conversation", "text_completion", "text_classification", "preference")
"""The kinds of job whose data is inspected."""
SHOWN_ROWS = 50
"""The dataset's first rows, which every report has; others are looked up when somebody asks for them."""
READ = (
    "templates",
    "cutoff_length",
    "epochs",
    "batch_size",
    "batch_tokens",
    "lora_rank",
    "lora_target_modules",
    "evaluation",
    "evaluation_split",
    "early_stop",
    "seed",
)
"""The settings that a report depends on."""
MOST_PENDING = 20
"""So many inspections of an account are under way at most: each reads a whole dataset."""
FIRST_POLL_SECONDS = 0.05
LAST_POLL_SECONDS = 0.5


def inspection_of(job: FineTuningJobRow, first_row: int = 0) -> InspectionRow:
    """The inspection of a planned job's data."""
    assert job.dataset_uid is not None and job.base_model_uid is not None
    row = InspectionRow(
        uid=uuid.uuid4(),
        account_id=job.account_id,
        kind=job.kind,
        dataset_uid=job.dataset_uid,
        evaluation_dataset_uid=job.evaluation_dataset_uid,
        base_model_uid=job.base_model_uid,
        warm_start_uid=job.warm_start_uid,
        settings={**job.settings, "wandb": None},
        first_row=first_row,
        state=PENDING,
    )
    row.key = key_of(row)
    return row


def key_of(row: InspectionRow) -> str:
    uids = (row.dataset_uid, row.evaluation_dataset_uid, row.base_model_uid, row.warm_start_uid)
    read = {name: row.settings.get(name) for name in READ}
    read["epochs"] = float(row.settings["epochs"])  # A whole number in some collections.
    what = [row.kind, [str(uid) for uid in uids], read, row.first_row]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


async def of_job(session: AsyncSession, job: FineTuningJobRow) -> InspectionRow | None:
    """The inspection of a planned job's data, made or to be made; None for a kind that has none.

    None, too, while the account has as many under way as it may.
    """
    if job.kind not in INSPECTED:
        return None
    wanted = inspection_of(job)
    if await find_inspection(session, wanted) is None and await has_enough(session, job.account_id):
        return None
    return await ask_for(session, wanted)


async def found_of_job(session: AsyncSession, job: FineTuningJobRow) -> InspectionRow | None:
    """The inspection of a planned job's data, if anybody has asked for it."""
    return await find_inspection(session, inspection_of(job)) if job.kind in INSPECTED else None


async def has_enough(session: AsyncSession, account_id: str) -> bool:
    """Whether as many of the account's inspections are under way as it may have."""
    mine = select(InspectionRow.uid).where(
        InspectionRow.account_id == account_id, InspectionRow.state == PENDING
    )
    counted = select(func.count()).select_from(mine.limit(MOST_PENDING).subquery())
    return (await session.scalar(counted) or 0) >= MOST_PENDING


async def refuse_too_many(session: AsyncSession, account_id: str) -> None:
    if await has_enough(session, account_id):
        raise ApiError(
            Code.RESOURCE_EXHAUSTED,
            f"{MOST_PENDING} inspections of accounts/{account_id} are under way; ask again in a moment",
            headers={"Retry-After": "2"},
        )


def counted_tokens(row: InspectionRow | None) -> int | None:
    """Of all epochs; None while nobody has counted."""
    return int(row.report["estimate"]["tokens"]) if row is not None and row.state == READY else None


async def ask_for(session: AsyncSession, wanted: InspectionRow) -> InspectionRow:
    """The inspection of that key: there already, or to be made; one that failed is made again.

    429 while the account has as many under way as it may.
    """
    row = await find_inspection(session, wanted)
    if row is None:
        await refuse_too_many(session, wanted.account_id)
        values = {
            name: getattr(wanted, name)
            for name in ("uid", "account_id", "key", "kind", "settings", "first_row", "state", *UIDS)
        }
        await session.execute(
            insert(InspectionRow)
            .values(**values, status_code="OK", status_message="", reason="", report={})
            .values(next_reconcile_at=func.now())
            .on_conflict_do_nothing()
        )
        row = await find_inspection(session, wanted)
        assert row is not None
    elif row.state == FAILED:
        row.state, row.status_code, row.reason, row.status_message = PENDING, "OK", "", ""
        row.next_reconcile_at, row.lease_claims = func.now(), 0
    return row


UIDS = ("dataset_uid", "evaluation_dataset_uid", "base_model_uid", "warm_start_uid")


async def find_inspection(session: AsyncSession, wanted: InspectionRow) -> InspectionRow | None:
    query = select(InspectionRow).where(
        InspectionRow.account_id == wanted.account_id, InspectionRow.key == wanted.key
    )
    found: InspectionRow | None = await session.scalar(query)
    return found


async def wait_for_report(ctx: Context, uid: uuid.UUID) -> InspectionRow:
    """The inspection once it has ended, or as it is when the waiting time is over."""
    deadline = time.monotonic() + ctx.settings.verdict_wait_seconds
    pause = FIRST_POLL_SECONDS
    while True:
        async with ctx.db.session() as session:
            row = await session.get(InspectionRow, uid)
        if row is None:
            raise ApiError(Code.ABORTED, "the dataset or the model was deleted while it was being inspected")
        if row.state != PENDING or time.monotonic() >= deadline:
            return row
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LAST_POLL_SECONDS)


async def estimate_of(session: AsyncSession, prices: Prices, row: InspectionRow) -> Estimate:
    """What a job on this data would take, from the report's counts."""
    counted = row.report["estimate"]
    tokens = int(counted["tokens"])
    rate = await earlier_rate(session, row)
    return Estimate(
        steps=counted["steps"],
        steps_per_epoch=counted["steps_per_epoch"],
        tokens=tokens,
        seconds=round(tokens / rate) if rate else 0,
        seconds_basis="EARLIER_JOBS" if rate else "",
        cost=Money.of(prices.of_training(row.settings["tuned_model"], tokens)),
    )


async def earlier_rate(session: AsyncSession, row: InspectionRow) -> float:
    """Tokens a second of the last job that was trained on the base model here; 0 when there is none."""
    rate = FineTuningJobRow.result["metrics"]["tokens_per_second"]
    query = (
        select(rate)
        .where(
            FineTuningJobRow.account_id == row.account_id,
            FineTuningJobRow.base_model_uid == row.base_model_uid,
            FineTuningJobRow.state.in_((COMPLETED, EARLY_STOPPED)),
            # Those of earlier versions have none.
            func.jsonb_typeof(rate) == "number",
        )
        .order_by(FineTuningJobRow.end_time.desc())
        .limit(1)
    )
    return float(await session.scalar(query) or 0.0)
