from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Body, Depends, Query, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import Context, ContextDep, may
from controlplane.names import ResourceName
from controlplane.queue import RECONCILE_FINE_TUNING_JOB
from controlplane.resources.fine_tuning_jobs import jobs
from controlplane.resources.fine_tuning_jobs.records import LogPlace, job_logs, job_metrics, log_place
from controlplane.resources.fine_tuning_jobs.schemas import JobLogs, JobMetrics
from controlplane.resources.fine_tuning_jobs.tables import SUPERVISED_FINE_TUNING_JOBS, FineTuningJobRow
from controlplane.resources.supervised_fine_tuning_jobs.listing import LISTING
from controlplane.resources.supervised_fine_tuning_jobs.schemas import (
    EstimateCostResponse,
    Money,
    SupervisedFineTuningJob,
    job_message,
)
from controlplane.resources.supervised_fine_tuning_jobs.service import estimate_cost, wanted_job
from controlplane.rest.access import find
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty
from controlplane.storage import StorageUnavailable

router = collection_router(
    SUPERVISED_FINE_TUNING_JOBS, "/v1/accounts/{account_id:rid}/supervisedFineTuningJobs"
)


def name_of(account_id: str, job_id: str) -> ResourceName:
    return ResourceName(account_id, SUPERVISED_FINE_TUNING_JOBS, job_id)


@router.post("", response_model=SupervisedFineTuningJob, summary="Create a supervised fine-tuning job")
async def create_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[SupervisedFineTuningJob, Body()],
    job_id: Annotated[str, Query(alias="supervisedFineTuningJobId")] = "",
) -> Response:
    async with ctx.work(caller) as work:
        row = await jobs.plan_job(work.session, ctx.settings, caller, wanted_job(job_id, body))
        if ctx.settings.prices is not None:
            row.settings = {**row.settings, "estimated_cost": estimate_cost(ctx.settings, row)}
        await jobs.store_job(work.session, row)
        work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
    return reply(job_message(row))


@router.post(
    ":estimateCost",
    response_model=EstimateCostResponse,
    summary="Estimate what a job would cost; nothing is created",
)
async def estimate_job_cost(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[SupervisedFineTuningJob, Body()],
) -> Response:
    async with ctx.db.session() as session:
        row = await jobs.plan_job(session, ctx.settings, caller, wanted_job("", body))
    return reply(EstimateCostResponse(estimated_cost=Money.of(estimate_cost(ctx.settings, row))))


@router.get(
    "",
    response_model=list_of(SupervisedFineTuningJob, SUPERVISED_FINE_TUNING_JOBS),
    summary="List supervised fine-tuning jobs",
)
async def list_jobs(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(FineTuningJobRow).where(
        FineTuningJobRow.account_id == account_id,
        FineTuningJobRow.collection == SUPERVISED_FINE_TUNING_JOBS,
    )
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
    messages = [job_message(row) for row in found.rows]
    return reply_page(SUPERVISED_FINE_TUNING_JOBS, messages, found, page.read_mask)


@router.get(
    "/{job_id:rid}", response_model=SupervisedFineTuningJob, summary="Get a supervised fine-tuning job"
)
async def get_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    job_id: str,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, FineTuningJobRow, name_of(account_id, job_id))
    url = await metrics_url(ctx, row)
    return reply(job_message(row).model_copy(update={"metrics_file_signed_url": url}), readMask)


@router.get(
    "/{job_id:rid}:metrics", response_model=JobMetrics, summary="Get what the trainer has logged so far"
)
async def get_metrics(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.view")], account_id: str, job_id: str
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, FineTuningJobRow, name_of(account_id, job_id))
    return reply(await job_metrics(ctx, row))


@router.get("/{job_id:rid}:logs", response_model=JobLogs, summary="Get what the job's trainers printed")
async def get_logs(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    job_id: str,
    place: Annotated[LogPlace, Depends(log_place)],
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, FineTuningJobRow, name_of(account_id, job_id))
    return reply(await job_logs(ctx, row, place))


@router.delete(
    "/{job_id:rid}",
    response_model=Empty,
    summary="Stop and delete a supervised fine-tuning job; its model stays",
)
async def delete_job(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.change")], account_id: str, job_id: str
) -> Response:
    async with ctx.work(caller) as work:
        row = await find(work.session, FineTuningJobRow, name_of(account_id, job_id), lock=True)
        refuse_other_version(work.session, job_message(row))
        jobs.delete_job(row)
        work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
    return reply(Empty())


@router.post(
    "/{job_id:rid}:cancel", response_model=Empty, summary="Stop a job; it can be resumed where it stood"
)
async def cancel_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    job_id: str,
    body: Annotated[Empty, Body(default_factory=Empty)],
) -> Response:
    async with ctx.work(caller) as work:
        row = await find(work.session, FineTuningJobRow, name_of(account_id, job_id), lock=True)
        jobs.cancel_job(row)
        work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
    return reply(Empty())


@router.post(
    "/{job_id:rid}:resume",
    response_model=SupervisedFineTuningJob,
    summary="Go on with a cancelled or failed job from its last checkpoint",
)
async def resume_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    job_id: str,
    body: Annotated[Empty, Body(default_factory=Empty)],
) -> Response:
    async with ctx.work(caller) as work:
        row = await jobs.find_to_resume(work.session, name_of(account_id, job_id))
        await jobs.resume_job(work.session, row)
        work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
    return reply(job_message(row))


async def metrics_url(ctx: Context, row: FineTuningJobRow) -> str:
    """Where the job's metrics can be read; empty before there are any, and while nobody could read them."""
    key = row.prefix + "metrics.jsonl"
    try:
        found = await asyncio.to_thread(ctx.store.head, key) if row.attempt else None
    except StorageUnavailable:
        return ""
    return ctx.store.signed_get_url(key, f"{row.id}-metrics.jsonl") if found else ""
