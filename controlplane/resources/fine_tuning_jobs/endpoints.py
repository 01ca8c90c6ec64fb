from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Depends, Query, Response
from pydantic.alias_generators import to_camel
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.names import ResourceName, parse_name
from controlplane.queue import RECONCILE_FINE_TUNING_JOB
from controlplane.resources.fine_tuning_jobs.jobs import delete_job as delete_row
from controlplane.resources.fine_tuning_jobs.jobs import plan_job, store_job
from controlplane.resources.fine_tuning_jobs.listing import LISTING
from controlplane.resources.fine_tuning_jobs.records import LogPlace, job_logs, job_metrics, log_place
from controlplane.resources.fine_tuning_jobs.schemas import (
    INTERNAL,
    FineTuningJob,
    JobLogs,
    JobMetrics,
    job_message,
)
from controlplane.resources.fine_tuning_jobs.service import wanted_job
from controlplane.resources.fine_tuning_jobs.tables import FINE_TUNING_JOBS, FineTuningJobRow
from controlplane.rest.access import find
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.masks import changes, refuse_fixed
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty, refuse_by_name

router = collection_router("fineTuningJobs", "/v1/accounts/{account_id:rid}/fineTuningJobs")

REFERENCES = {
    "dataset": "datasets",
    "evaluation_dataset": "datasets",
    "base_model": "models",
    "warm_start_from": "models",
    "model_id": "models",
}
"""The fields that name something, and the collection that it is in."""


def name_of(account_id: str, job_id: str) -> ResourceName:
    return ResourceName(account_id, FINE_TUNING_JOBS, job_id)


@router.post("", response_model=FineTuningJob, summary="Create a fine-tuning job")
async def create_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[FineTuningJob, Body()],
    job_id: Annotated[str, Query(alias="fineTuningJobId")] = "",
    debug: Annotated[bool, Query(description="Not supported.")] = False,
    update_time: Annotated[
        str, Query(alias="updateTime", description="Accepted from older clients; has no effect.")
    ] = "",
) -> Response:
    refuse_by_name([("debug", INTERNAL)] if debug else [])
    async with ctx.work(caller) as work:
        row = await plan_job(work.session, ctx.settings, caller, wanted_job(job_id, body))
        await store_job(work.session, row)
        work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
    return reply(job_message(row))


@router.get("", response_model=list_of(FineTuningJob, "fineTuningJobs"), summary="List fine-tuning jobs")
async def list_jobs(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(FineTuningJobRow).where(
        FineTuningJobRow.account_id == account_id, FineTuningJobRow.collection == FINE_TUNING_JOBS
    )
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
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
        shown = job_message(row)
        changed = changes(work.session, body, updateMask, shown)
        refuse_fixed(changed, {"display_name", *same_references(changed, shown, account_id)}, "a job")
        row.display_name = changed.get("display_name", row.display_name)
        await work.session.flush()
    return reply(job_message(row))


def same_references(changed: dict[str, Any], shown: FineTuningJob, account_id: str) -> set[str]:
    """The fields that name what the job has already, in the other form of its name."""

    def whole(field: str, name: str) -> str:
        return str(parse_name(name, REFERENCES[field], account_id, to_camel(field))) if name else ""

    named = REFERENCES.keys() & changed.keys()
    return {field for field in named if whole(field, changed[field]) == whole(field, getattr(shown, field))}


@router.delete("/{job_id:rid}", response_model=Empty, summary="Stop and delete a job; its model stays")
async def delete_job(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.change")], account_id: str, job_id: str
) -> Response:
    async with ctx.work(caller) as work:
        row = await find(work.session, FineTuningJobRow, name_of(account_id, job_id), lock=True)
        refuse_other_version(work.session, job_message(row))
        delete_row(row)
        work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
    return reply(Empty())
