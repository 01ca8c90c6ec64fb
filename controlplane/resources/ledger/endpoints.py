from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Query, Response

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.db import now
from controlplane.names import ResourceName
from controlplane.resources.deployments.tables import DeploymentRow
from controlplane.resources.ledger.queries import Period, deployment_hours
from controlplane.resources.ledger.reads import (
    ANY_TYPE,
    LONGEST_SUMMARY,
    UsageRequest,
    billing_summary,
    billing_usage,
    check_period,
    check_request,
    whole_days,
)
from controlplane.resources.ledger.schemas import BillingSummary, BillingUsage, DeploymentLedger, LedgerPoint
from controlplane.rest.access import find
from controlplane.rest.responses import reply
from controlplane.rest.router import collection_router
from controlplane.rest.schema import Timestamp
from controlplane.rest.time_limit import limit_statements

router = collection_router("billing", "/v1/accounts/{account_id:rid}")

SHOWN_HOURS = timedelta(days=31)

StartTime = Annotated[Timestamp, Query(alias="startTime", description="From this moment on.")]
EndTime = Annotated[Timestamp, Query(alias="endTime", description="Before this moment.")]
COMMAS = "Several are separated by commas."


@router.get(
    "/billing/summary",
    response_model=BillingSummary,
    summary="What each product came to, by whole days in UTC",
)
async def get_billing_summary(
    ctx: ContextDep,
    caller: Annotated[Caller, may("billing.view")],
    account_id: str,
    start_time: StartTime,
    end_time: EndTime,
) -> Response:
    period = whole_days(start_time, end_time)
    check_period(period.start, period.end, LONGEST_SUMMARY)
    async with ctx.db.session() as session:
        await limit_statements(session, ctx.settings.list_timeout_seconds)
        message = await billing_summary(session, account_id, period)
    return reply(message)


def usage_filters(
    model_name: Annotated[str, Query(alias="filter[model_name][values]", description=COMMAS)] = "",
    deployment_name: Annotated[str, Query(alias="filter[deployment_name][values]", description=COMMAS)] = "",
    api_key_id: Annotated[str, Query(alias="filter[api_key_id][values]", description=COMMAS)] = "",
    user_id: Annotated[str, Query(alias="filter[user_id][values]", description=COMMAS)] = "",
    accelerator_type: Annotated[
        str, Query(alias="filter[accelerator_type][values]", description=COMMAS)
    ] = "",
    base_model: Annotated[str, Query(alias="filter[base_model][values]", description=COMMAS)] = "",
    job_name: Annotated[str, Query(alias="filter[job_name][values]", description=COMMAS)] = "",
) -> dict[str, list[str]]:
    """What usage is filtered by; several values of one dimension are alternatives."""
    given = {
        "model_name": model_name,
        "deployment_name": deployment_name,
        "api_key_id": api_key_id,
        "user_id": user_id,
        "accelerator_type": accelerator_type,
        "base_model": base_model,
        "job_name": job_name,
    }
    return {name: split_list(values) for name, values in given.items() if split_list(values)}


def split_list(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


@router.get("/billingUsage", response_model=BillingUsage, summary="What was used, by day and group")
async def get_billing_usage(
    ctx: ContextDep,
    caller: Annotated[Caller, may("billing.view")],
    account_id: str,
    start_time: StartTime,
    end_time: EndTime,
    chosen: Annotated[dict[str, list[str]], Depends(usage_filters)],
    usage_type: Annotated[str, Query(alias="usageType")] = ANY_TYPE,
    timezone: Annotated[str, Query(description="Whose days; UTC when unset.")] = "UTC",
    group_by: Annotated[str, Query(alias="groupBy", description=COMMAS)] = "",
) -> Response:
    request = UsageRequest(
        account_id,
        Period(start_time, end_time, timezone or "UTC"),
        usage_type or ANY_TYPE,
        split_list(group_by),
        chosen,
    )
    check_request(request)
    async with ctx.db.session() as session:
        await limit_statements(session, ctx.settings.list_timeout_seconds)
        message = await billing_usage(session, request)
    return reply(message)


@router.get(
    "/deployments/{deployment_id:rid}/ledger",
    response_model=DeploymentLedger,
    summary="The GPU-seconds of a deployment by hour; without GPUs, its replica-seconds",
)
async def get_deployment_ledger(
    ctx: ContextDep, caller: Annotated[Caller, may("billing.view")], account_id: str, deployment_id: str
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, DeploymentRow, ResourceName(account_id, "deployments", deployment_id))
        since = max(row.create_time, now() - SHOWN_HOURS)
        hours = (await session.execute(deployment_hours(account_id, row.name, since))).all()
    points = [LedgerPoint(timestamp=hour, value=float(ms) / 1000) for hour, ms in hours]
    return reply(DeploymentLedger(ledger=points))
