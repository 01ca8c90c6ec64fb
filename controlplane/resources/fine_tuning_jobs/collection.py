"""The endpoints that the collections of fine-tuning jobs have in common, written once.

Each `add_…` adds some to a collection's router. What a create reads is each collection's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.context import Context, ContextDep, may
from controlplane.names import ResourceName
from controlplane.queue import INSPECT_DATASET, RECONCILE_FINE_TUNING_JOB, enqueue
from controlplane.resources.fine_tuning_jobs import jobs
from controlplane.resources.fine_tuning_jobs.costs import (
    COUNTED,
    ESTIMATED,
    EstimateCostResponse,
    Money,
    cost_of,
    estimated_tokens,
)
from controlplane.resources.fine_tuning_jobs.left_behind import add_checkpoints, add_plot
from controlplane.resources.fine_tuning_jobs.records import (
    LogPlace,
    job_logs,
    job_metrics,
    log_place,
    signed_if_there,
)
from controlplane.resources.fine_tuning_jobs.schemas import JobLogs, JobMetrics
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.fine_tuning_jobs.wanted import Wanted
from controlplane.resources.inspections import service as inspections
from controlplane.rest.access import find
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.listing import Listing
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import list_of
from controlplane.rest.schema import ApiModel, Empty


@dataclass(frozen=True)
class JobCollection:
    """A collection of jobs over the one table. `noun`: what one of them is called."""

    noun: str
    listing: Listing
    message: Callable[[FineTuningJobRow], ApiModel]

    @property
    def key(self) -> str:
        return self.listing.key

    def name_of(self, account_id: str, job_id: str) -> ResourceName:
        return ResourceName(account_id, self.key, job_id)

    async def find(
        self, session: AsyncSession, account_id: str, job_id: str, *, lock: bool = False
    ) -> FineTuningJobRow:
        """The job, or 404; a job of another collection is not found."""
        return await find(session, FineTuningJobRow, self.name_of(account_id, job_id), lock=lock)


async def create(ctx: Context, caller: Caller, collection: JobCollection, wanted: Wanted) -> Response:
    """Answer a create: the job is planned and stored, and a worker is told."""
    async with ctx.work(caller) as work:
        row = await jobs.plan_job(work.session, ctx.settings, caller, wanted)
        if ctx.settings.prices is not None:
            counted = inspections.counted_tokens(await inspections.found_of_job(work.session, row))
            tokens = estimated_tokens(row) if counted is None else counted
            row.settings = {**row.settings, "estimated_cost": cost_of(ctx.settings, row, tokens)}
        await jobs.store_job(work.session, row)
        work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
    return reply(collection.message(row))


async def estimate(ctx: Context, caller: Caller, wanted: Wanted) -> Response:
    """Answer what such a job would cost; no job is created.

    Tokens are those that an inspection has counted; without one it is asked for, and they are estimated.
    """
    async with ctx.db.session() as session:
        row = await jobs.plan_job(session, ctx.settings, caller, wanted)
        inspection = await inspections.of_job(session, row)
    if inspection is not None:
        await asyncio.to_thread(enqueue, ctx.settings, INSPECT_DATASET, inspection.uid)
    counted = inspections.counted_tokens(inspection)
    tokens = estimated_tokens(row) if counted is None else counted
    answer = EstimateCostResponse(
        estimated_cost=Money.of(cost_of(ctx.settings, row, tokens)),
        tokens=tokens,
        tokens_basis=ESTIMATED if counted is None else COUNTED,
    )
    return reply(answer)


def add_list(router: APIRouter, collection: JobCollection) -> None:
    key = collection.key

    @router.get(
        "", response_model=list_of(collection.listing.message, key), summary=f"List {collection.noun}s"
    )
    async def list_jobs(
        ctx: ContextDep,
        caller: Annotated[Caller, may("resources.view")],
        account_id: str,
        page: Annotated[PageRequest, Depends(page_request)],
    ) -> Response:
        query = select(FineTuningJobRow).where(
            FineTuningJobRow.account_id == account_id, FineTuningJobRow.collection == key
        )
        async with ctx.db.session() as session:
            found = await fetch_page(session, query, collection.listing, page)
        return reply_page(key, [collection.message(row) for row in found.rows], found, page.read_mask)


def add_get(router: APIRouter, collection: JobCollection) -> None:
    """Get; the file of metrics is named here for messages that have a field for it."""
    has_metrics_url = "metrics_file_signed_url" in collection.listing.message.model_fields

    @router.get(
        "/{job_id:rid}", response_model=collection.listing.message, summary=f"Get a {collection.noun}"
    )
    async def get_job(
        ctx: ContextDep,
        caller: Annotated[Caller, may("resources.view")],
        account_id: str,
        job_id: str,
        readMask: str = "",
    ) -> Response:
        async with ctx.db.session() as session:
            row = await collection.find(session, account_id, job_id)
        message = collection.message(row)
        if has_metrics_url:
            message = message.model_copy(update={"metrics_file_signed_url": await metrics_url(ctx, row)})
        return reply(message, readMask)


def add_records(router: APIRouter, collection: JobCollection) -> None:
    """What a job leaves behind while it runs: its metrics and its log."""

    @router.get(
        "/{job_id:rid}:metrics", response_model=JobMetrics, summary="Get what the trainer has logged so far"
    )
    async def get_metrics(
        ctx: ContextDep, caller: Annotated[Caller, may("resources.view")], account_id: str, job_id: str
    ) -> Response:
        async with ctx.db.session() as session:
            row = await collection.find(session, account_id, job_id)
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
            row = await collection.find(session, account_id, job_id)
        return reply(await job_logs(ctx, row, place))


def add_delete(router: APIRouter, collection: JobCollection) -> None:
    @router.delete(
        "/{job_id:rid}",
        response_model=Empty,
        summary=f"Stop and delete a {collection.noun}; its model stays",
    )
    async def delete_job(
        ctx: ContextDep, caller: Annotated[Caller, may("resources.change")], account_id: str, job_id: str
    ) -> Response:
        async with ctx.work(caller) as work:
            row = await collection.find(work.session, account_id, job_id, lock=True)
            refuse_other_version(work.session, collection.message(row))
            jobs.delete_job(row)
            work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
        return reply(Empty())


def add_stops(router: APIRouter, collection: JobCollection) -> None:
    for verb, stop, summary in STOPS:
        add_stop(router, collection, verb, stop, summary)


STOPS = (
    ("cancel", jobs.cancel_job, "Stop a job; it can be resumed where it stood"),
    (
        "pause",
        jobs.pause_job,
        "Stop a job for a while, after a checkpoint; others get its place until it is resumed",
    ),
)


def add_stop(
    router: APIRouter,
    collection: JobCollection,
    verb: str,
    stop: Callable[[FineTuningJobRow], None],
    summary: str,
) -> None:
    @router.post(f"/{{job_id:rid}}:{verb}", response_model=Empty, summary=summary, name=f"{verb}_job")
    async def stop_job(
        ctx: ContextDep,
        caller: Annotated[Caller, may("resources.change")],
        account_id: str,
        job_id: str,
        body: Annotated[Empty, Body(default_factory=Empty)],
    ) -> Response:
        async with ctx.work(caller) as work:
            row = await collection.find(work.session, account_id, job_id, lock=True)
            stop(row)
            work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
        return reply(Empty())


def add_resume(router: APIRouter, collection: JobCollection) -> None:
    @router.post(
        "/{job_id:rid}:resume",
        response_model=collection.listing.message,
        summary="Go on with a paused, cancelled or failed job from its last checkpoint",
    )
    async def resume_job(
        ctx: ContextDep,
        caller: Annotated[Caller, may("resources.change")],
        account_id: str,
        job_id: str,
        body: Annotated[Empty, Body(default_factory=Empty)],
    ) -> Response:
        async with ctx.work(caller) as work:
            row = await jobs.find_to_resume(work.session, collection.name_of(account_id, job_id))
            await jobs.resume_job(work.session, row)
            work.hint(RECONCILE_FINE_TUNING_JOB, row.uid)
        return reply(collection.message(row))


IN_COMMON = (
    *(add_list, add_get, add_records, add_plot, add_checkpoints),
    *(add_delete, add_stops, add_resume),
)


def add_all(router: APIRouter, collection: JobCollection) -> None:
    """Everything that the collections have in common."""
    for add in IN_COMMON:
        add(router, collection)


async def metrics_url(ctx: Context, row: FineTuningJobRow) -> str:
    return await signed_if_there(ctx, row, "metrics.jsonl")
