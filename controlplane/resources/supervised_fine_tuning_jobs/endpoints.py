from __future__ import annotations

from typing import Annotated

from fastapi import Body, Query, Response

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.resources.fine_tuning_jobs.collection import JobCollection, add_all, create, estimate
from controlplane.resources.fine_tuning_jobs.costs import EstimateCostResponse
from controlplane.resources.fine_tuning_jobs.tables import SUPERVISED_FINE_TUNING_JOBS
from controlplane.resources.supervised_fine_tuning_jobs.listing import LISTING
from controlplane.resources.supervised_fine_tuning_jobs.schemas import SupervisedFineTuningJob, job_message
from controlplane.resources.supervised_fine_tuning_jobs.service import wanted_job
from controlplane.rest.router import collection_router

router = collection_router(
    SUPERVISED_FINE_TUNING_JOBS, "/v1/accounts/{account_id:rid}/supervisedFineTuningJobs"
)
JOBS = JobCollection("supervised fine-tuning job", LISTING, job_message)


@router.post("", response_model=SupervisedFineTuningJob, summary="Create a supervised fine-tuning job")
async def create_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[SupervisedFineTuningJob, Body()],
    job_id: Annotated[str, Query(alias="supervisedFineTuningJobId")] = "",
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
    body: Annotated[SupervisedFineTuningJob, Body()],
) -> Response:
    return await estimate(ctx, caller, wanted_job("", body))


add_all(router, JOBS)
