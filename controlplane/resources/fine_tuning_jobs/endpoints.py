from __future__ import annotations

import asyncio
import json
from typing import Annotated

from fastapi import Body, Depends, Query, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.names import ResourceName
from controlplane.queue import RECONCILE_FINE_TUNING_JOB
from controlplane.resources.fine_tuning_jobs import service
from controlplane.resources.fine_tuning_jobs.schemas import FineTuningJob, JobMetrics, job_message
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.rest.access import find
from controlplane.rest.masks import changes, refuse_fixed
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty
from controlplane.storage import ObjectNotFound

router = collection_router("fineTuningJobs", "/v1/accounts/{account_id:rid}/fineTuningJobs")


def name_of(account_id: str, job_id: str) -> ResourceName:
    return ResourceName(account_id, "fineTuningJobs", job_id)


@router.post("", response_model=FineTuningJob, summary="Create a fine-tuning job")
async def create_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[FineTuningJob, Body()],
    job_id: Annotated[str, Query(alias="fineTuningJobId")] = "",
) -> Response:
    async with ctx.work(caller) as work:
        row = await service.create_job(work.session, ctx.settings, caller, job_id, body)
        work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
    return reply(job_message(row))


@router.get("", response_model=list_of(FineTuningJob, "fineTuningJobs"), summary="List fine-tuning jobs")
async def list_jobs(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(FineTuningJobRow).where(FineTuningJobRow.account_id == account_id)
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, FineTuningJobRow.id, page, f"jobs of {account_id}")
    return reply_page("fineTuningJobs", [job_message(row) for row in found.rows], found, page.read_mask)


@router.get("/{job_id:rid}", response_model=FineTuningJob, summary="Get a fine-tuning job")
async def get_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    job_id: str,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, FineTuningJobRow, name_of(account_id, job_id))
    return reply(job_message(row), readMask)


@router.get(
    "/{job_id:rid}:metrics", response_model=JobMetrics, summary="Get what the trainer has logged so far"
)
async def get_metrics(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.view")], account_id: str, job_id: str
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, FineTuningJobRow, name_of(account_id, job_id))
    try:
        logged = await asyncio.to_thread(ctx.store.get_bytes, row.prefix + "metrics.jsonl")
    except ObjectNotFound:
        return reply(JobMetrics())
    return reply(JobMetrics(metrics=[json.loads(line) for line in logged.splitlines() if line.strip()]))


@router.patch("/{job_id:rid}", response_model=FineTuningJob, summary="Update a job's display name")
async def update_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    job_id: str,
    body: Annotated[FineTuningJob, Body()],
    updateMask: str = "",
) -> Response:
    async with ctx.work(caller) as work:
        row = await find(work.session, FineTuningJobRow, name_of(account_id, job_id), lock=True)
        changed = changes(work.session, body, updateMask, job_message(row))
        refuse_fixed(changed, {"display_name"}, "a job")
        row.display_name = changed.get("display_name", row.display_name)
        await work.session.flush()
    return reply(job_message(row))


@router.delete("/{job_id:rid}", response_model=Empty, summary="Stop and delete a job; its model stays")
async def delete_job(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.change")], account_id: str, job_id: str
) -> Response:
    async with ctx.work(caller) as work:
        row = await service.delete_job(work.session, name_of(account_id, job_id))
        work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
    return reply(Empty())
