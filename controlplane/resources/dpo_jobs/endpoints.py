from __future__ import annotations

from typing import Annotated

from fastapi import Body, Query, Response

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.resources.dpo_jobs.listing import LISTING
from controlplane.resources.dpo_jobs.schemas import DpoJob, MetricsFileEndpoint, job_message
from controlplane.resources.dpo_jobs.service import wanted_job
from controlplane.resources.fine_tuning_jobs.collection import (
    JobCollection,
    add_all,
    create,
    estimate,
    metrics_url,
)
from controlplane.resources.fine_tuning_jobs.costs import EstimateCostResponse
from controlplane.resources.fine_tuning_jobs.tables import DPO_JOBS
from controlplane.rest.responses import reply
from controlplane.rest.router import collection_router

router = collection_router(DPO_JOBS, "/v1/accounts/{account_id:rid}/dpoJobs")
JOBS = JobCollection("preference tuning job", LISTING, job_message)


@router.post("", response_model=DpoJob, summary="Create a preference tuning job")
async def create_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[DpoJob, Body()],
    job_id: Annotated[str, Query(alias="dpoJobId")] = "",
) -> Response:
    return await create(ctx, caller, JOBS, wanted_job(job_id, body))


@router.post(
    ":estimateCost",
    response_model=EstimateCostResponse,
    summary="Estimate what a job would cost; nothing is created",
)
async def estimate_job_cost(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[DpoJob, Body()],
) -> Response:
    return await estimate(ctx, caller, wanted_job("", body))


@router.get(
    "/{job_id:rid}:getMetricsFileEndpoint",
    response_model=MetricsFileEndpoint,
    summary="Get an address of the job's metrics, for an hour",
)
async def get_metrics_file_endpoint(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.view")], account_id: str, job_id: str
) -> Response:
    async with ctx.db.session() as session:
        row = await JOBS.find(session, account_id, job_id)
    return reply(MetricsFileEndpoint(signed_url=await metrics_url(ctx, row)))


add_all(router, JOBS)
