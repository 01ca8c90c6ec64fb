from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.context import Context, ContextDep, may
from controlplane.names import ResourceName
from controlplane.resources.quotas import updates
from controlplane.resources.quotas.catalog import allowances
from controlplane.resources.quotas.limits import ALLOWANCES, read_limits
from controlplane.resources.quotas.listing import LISTING, quota_ids
from controlplane.resources.quotas.schemas import Quota
from controlplane.resources.quotas.usage import usage_of
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of

router = collection_router("quotas", "/v1/accounts/{account_id:rid}/quotas")


def with_allowances(ctx: Context, session: AsyncSession) -> AsyncSession:
    session.info[ALLOWANCES] = allowances(ctx.settings.quotas)
    return session


@router.get("", response_model=list_of(Quota, "quotas"), summary="List quotas, and how much of each is used")
async def list_quotas(
    ctx: ContextDep,
    caller: Annotated[Caller, may("quotas.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    async with ctx.db.session() as session:
        limits = await read_limits(with_allowances(ctx, session), account_id)
        usage = await usage_of(session, account_id)
        found = await fetch_page(session, quota_ids(limits, usage), LISTING, page)
    by_id = {limit.id: limit for limit in limits}
    messages = [Quota.of(by_id[quota_id], usage.get(quota_id, 0.0)) for quota_id in found.rows]
    return reply_page("quotas", messages, found, page.read_mask)


@router.get("/{quota_id:rid}", response_model=Quota, summary="Get a quota")
async def get_quota(
    ctx: ContextDep,
    caller: Annotated[Caller, may("quotas.view")],
    account_id: str,
    quota_id: str,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        name = ResourceName(account_id, "quotas", quota_id)
        limit = await updates.find_quota(with_allowances(ctx, session), name)
        message = await updates.quota_message(session, limit)
    return reply(message, readMask)


@router.patch("/{quota_id:rid}", response_model=Quota, summary="Set a quota, up to its maxValue")
async def update_quota(
    ctx: ContextDep,
    caller: Annotated[Caller, may("quotas.manage")],
    account_id: str,
    quota_id: str,
    body: Annotated[Quota, Body()],
    updateMask: str = "",
    allow_missing: Annotated[
        bool, Query(alias="allowMissing", description="No quota is ever missing: it has no effect.")
    ] = False,
) -> Response:
    name = ResourceName(account_id, "quotas", quota_id)
    async with ctx.work(caller) as work:
        limit = await updates.update_quota(work.session, name, body, updateMask)
        message = await updates.quota_message(work.session, limit)
    return reply(message)
