from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Query, Response
from pydantic.alias_generators import to_camel

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.names import parse_name
from controlplane.resources.fine_tuning_jobs.collection import JobCollection, add_all, create
from controlplane.resources.fine_tuning_jobs.listing import LISTING
from controlplane.resources.fine_tuning_jobs.queueing import change_priority
from controlplane.resources.fine_tuning_jobs.schemas import INTERNAL, FineTuningJob, job_message
from controlplane.resources.fine_tuning_jobs.service import wanted_job
from controlplane.rest.masks import changes, refuse_fixed
from controlplane.rest.responses import reply
from controlplane.rest.router import collection_router
from controlplane.rest.schema import refuse_by_name

router = collection_router("fineTuningJobs", "/v1/accounts/{account_id:rid}/fineTuningJobs")

REFERENCES = {
    "dataset": "datasets",
    "evaluation_dataset": "datasets",
    "base_model": "models",
    "warm_start_from": "models",
    "model_id": "models",
}
"""The fields that name something, and the collection that it is in."""


JOBS = JobCollection("fine-tuning job", LISTING, job_message)


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
    return await create(ctx, caller, JOBS, wanted_job(job_id, body))


@router.patch(
    "/{job_id:rid}", response_model=FineTuningJob, summary="Update a job's display name, or its priority"
)
async def update_job(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    job_id: str,
    body: Annotated[FineTuningJob, Body()],
    updateMask: str = "",
) -> Response:
    async with ctx.work(caller) as work:
        row = await JOBS.find(work.session, account_id, job_id, lock=True)
        shown = job_message(row)
        changed = changes(work.session, body, updateMask, shown)
        free = {"display_name", "priority", *same_references(changed, shown, account_id)}
        refuse_fixed(changed, free, "a job")
        row.display_name = changed.get("display_name", row.display_name)
        change_priority(row, changed.get("priority", row.priority))
        await work.session.flush()
    return reply(job_message(row))


def same_references(changed: dict[str, Any], shown: FineTuningJob, account_id: str) -> set[str]:
    """The fields that name what the job has already, in the other form of its name."""

    def whole(field: str, name: str) -> str:
        return str(parse_name(name, REFERENCES[field], account_id, to_camel(field))) if name else ""

    named = REFERENCES.keys() & changed.keys()
    return {field for field in named if whole(field, changed[field]) == whole(field, getattr(shown, field))}


add_all(router, JOBS)
