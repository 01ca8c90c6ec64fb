from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Response

from controlplane.auth import Caller
from controlplane.context import Context, ContextDep, may
from controlplane.names import ResourceName
from controlplane.prices import Prices
from controlplane.queue import INSPECT_DATASET
from controlplane.resources.fine_tuning_jobs.jobs import plan_job
from controlplane.resources.inspections import service
from controlplane.resources.inspections.schemas import (
    InspectDatasetRequest,
    InspectDatasetResponse,
    report_message,
)
from controlplane.resources.inspections.service import SHOWN_ROWS
from controlplane.resources.inspections.states import FAILED, READY
from controlplane.resources.inspections.tables import InspectionRow
from controlplane.resources.inspections.wanted import wanted_job
from controlplane.resources.tables import DatasetRow
from controlplane.rest.access import find
from controlplane.rest.responses import reply
from controlplane.rest.router import collection_router
from controlplane.rest.schema import Status

router = collection_router("datasets", "/v1/accounts/{account_id:rid}/datasets")

DEFAULT_ROWS = 3


@router.post(
    "/{dataset_id:rid}:inspect",
    response_model=InspectDatasetResponse,
    summary="See what training on a dataset would meet, without training: findings, tokens, steps, cost",
)
async def inspect_dataset(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    dataset_id: str,
    body: Annotated[InspectDatasetRequest, Body()],
) -> Response:
    """Waits for a worker as uploads do. While the state is PENDING ask again with the same body."""
    name = ResourceName(account_id, "datasets", dataset_id)
    first, count = max(1, body.first_row), body.row_count or DEFAULT_ROWS
    async with ctx.work(caller) as work:
        dataset = await find(work.session, DatasetRow, name)
        job = await plan_job(work.session, ctx.settings, caller, wanted_job(dataset, body))
        rows = [await service.ask_for(work.session, service.inspection_of(job))]
        if first + count - 1 > SHOWN_ROWS:
            rows.append(await service.ask_for(work.session, service.inspection_of(job, first)))
        for row in rows:
            work.hint(INSPECT_DATASET, row.uid)
    done = [await service.wait_for_report(ctx, row.uid) for row in rows]
    return reply(await answer(ctx, done, first, count))


async def answer(ctx: Context, rows: list[InspectionRow], first: int, count: int) -> InspectDatasetResponse:
    """The report, with rows of its own or of the inspection that was made for them."""
    worst = next((row for row in rows if row.state == FAILED), None)
    worst = worst or next((row for row in rows if row.state != READY), None)
    if worst is not None:
        return InspectDatasetResponse(state=worst.state, status=Status.of(worst))
    shown: list[dict[str, Any]] = rows[-1].report["rows"]
    offset = first - 1 if len(rows) == 1 else 0
    async with ctx.db.session() as session:
        estimate = await service.estimate_of(session, ctx.settings.prices or Prices(), rows[0])
    report = report_message(rows[0].report, shown[offset : offset + count], estimate)
    return InspectDatasetResponse(state=READY, status=Status.of(rows[0]), report=report)
