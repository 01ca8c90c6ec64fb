"""The endpoints of what a job leaves behind: its plot and its checkpoints."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Query, Response

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.queue import RECONCILE_MODEL
from controlplane.resources.fine_tuning_jobs.checkpoints import (
    MOST_PER_PAGE,
    CheckpointPage,
    PromoteCheckpointRequest,
    PromoteCheckpointResponse,
    checkpoint_downloads,
    files_of,
    list_checkpoints,
    page_of,
    promote,
)
from controlplane.resources.fine_tuning_jobs.records import PlotEndpoint, plot_endpoint
from controlplane.resources.models.service import shown_to
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.uploads import (
    GetDownloadEndpointResponse,
    refuse_if_invalid,
    wait_for_verdict,
)
from controlplane.rest.responses import reply

if TYPE_CHECKING:  # It adds these to the others.
    from controlplane.resources.fine_tuning_jobs.collection import JobCollection


def add_plot(router: APIRouter, collection: JobCollection) -> None:
    @router.get(
        "/{job_id:rid}:getPlotEndpoint",
        response_model=PlotEndpoint,
        summary="Get signed URLs of a picture of the job's loss and evaluations",
    )
    async def get_plot_endpoint(
        ctx: ContextDep, caller: Annotated[Caller, may("resources.view")], account_id: str, job_id: str
    ) -> Response:
        async with ctx.db.session() as session:
            row = await collection.find(session, account_id, job_id)
        return reply(await plot_endpoint(ctx, row))


def add_checkpoints(router: APIRouter, collection: JobCollection) -> None:
    """What a job's trainer has kept, to be downloaded and to be made models of."""

    @router.get(
        "/{job_id:rid}/checkpoints",
        response_model=CheckpointPage,
        summary="Show the checkpoints of a job",
    )
    async def list_job_checkpoints(
        ctx: ContextDep,
        caller: Annotated[Caller, may("resources.view")],
        account_id: str,
        job_id: str,
        page_size: Annotated[int, Query(alias="pageSize", ge=0, le=MOST_PER_PAGE)] = 0,
        page_token: Annotated[str, Query(alias="pageToken")] = "",
    ) -> Response:
        async with ctx.db.session() as session:
            row = await collection.find(session, account_id, job_id)
        found = await asyncio.to_thread(list_checkpoints, ctx.store, row.prefix)
        return reply(page_of(row, found, page_size, page_token))

    @router.get(
        "/{job_id:rid}/checkpoints/{checkpoint_id:rid}:getDownloadEndpoint",
        response_model=GetDownloadEndpointResponse,
        summary="Get a signed URL for each file of a checkpoint",
    )
    async def get_checkpoint_download_endpoint(
        ctx: ContextDep,
        caller: Annotated[Caller, may("resources.view")],
        account_id: str,
        job_id: str,
        checkpoint_id: str,
    ) -> Response:
        async with ctx.db.session() as session:
            row = await collection.find(session, account_id, job_id)
        return reply(await asyncio.to_thread(checkpoint_downloads, ctx.store, row, checkpoint_id))

    @router.post(
        "/{job_id:rid}/checkpoints/{checkpoint_id:rid}:promote",
        response_model=PromoteCheckpointResponse,
        summary="Make a model of a checkpoint",
    )
    async def promote_checkpoint(
        ctx: ContextDep,
        caller: Annotated[Caller, may("resources.create")],
        account_id: str,
        job_id: str,
        checkpoint_id: str,
        body: Annotated[PromoteCheckpointRequest, Body()],
    ) -> Response:
        async with ctx.db.session() as session:
            job = await collection.find(session, account_id, job_id)
        files = await asyncio.to_thread(files_of, ctx.store, job, checkpoint_id)
        async with ctx.work(caller) as work:
            job = await collection.find(work.session, account_id, job_id, lock=True)
            row = await promote(work.session, caller, job, checkpoint_id, files, body)
            work.hint(RECONCILE_MODEL, row.uid)
        if not body.async_promotion:
            row = await wait_for_verdict(ctx, ModelRow, row.uid)
            refuse_if_invalid(row, [])
        async with ctx.db.session() as session:
            (message,) = await shown_to(session, account_id, [row])
        return reply(PromoteCheckpointResponse(model=message))
