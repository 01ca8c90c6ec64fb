from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Query, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.errors import invalid
from controlplane.names import ResourceName
from controlplane.queue import RECONCILE_DEPLOYMENT
from controlplane.resources.deployed_models import service
from controlplane.resources.deployed_models.listing import LISTING
from controlplane.resources.deployed_models.schemas import DeployedModel
from controlplane.resources.tables import DeployedModelRow
from controlplane.rest.access import find
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty

router = collection_router("deployedModels", "/v1/accounts/{account_id:rid}/deployedModels")


@router.post("", response_model=DeployedModel, summary="Load a model on a deployment")
async def create_deployed_model(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[DeployedModel, Body()],
    replace_merged_addon: Annotated[
        bool, Query(alias="replaceMergedAddon", description="Not supported: addons are never merged.")
    ] = False,
) -> Response:
    if replace_merged_addon:
        raise invalid("replaceMergedAddon is not supported: addons are served unmerged", "replaceMergedAddon")
    async with ctx.work(caller) as work:
        row = await service.create_deployed_model(work.session, ctx.settings, caller, body)
        message = (await service.messages(work.session, [row]))[0]
        work.hint(RECONCILE_DEPLOYMENT, row.deployment_uid)
    return reply(message)


@router.get("", response_model=list_of(DeployedModel, "deployedModels"), summary="List deployed models")
async def list_deployed_models(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(DeployedModelRow).where(DeployedModelRow.account_id == account_id)
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
        messages = await service.messages(session, found.rows)
    return reply_page("deployedModels", list(messages), found, page.read_mask)


@router.get("/{deployed_model_id:rid}", response_model=DeployedModel, summary="Get a deployed model")
async def get_deployed_model(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    deployed_model_id: str,
    readMask: str = "",
) -> Response:
    name = ResourceName(account_id, "deployedModels", deployed_model_id)
    async with ctx.db.session() as session:
        row = await find(session, DeployedModelRow, name)
        message = (await service.messages(session, [row]))[0]
    return reply(message, readMask)


@router.patch("/{deployed_model_id:rid}", response_model=DeployedModel, summary="Update a deployed model")
async def update_deployed_model(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    deployed_model_id: str,
    body: Annotated[DeployedModel, Body()],
    updateMask: str = "",
) -> Response:
    name = ResourceName(account_id, "deployedModels", deployed_model_id)
    async with ctx.work(caller) as work:
        row = await service.update_deployed_model(work.session, name, body, updateMask)
        message = (await service.messages(work.session, [row]))[0]
    return reply(message)


@router.delete("/{deployed_model_id:rid}", response_model=Empty, summary="Unload a model from its deployment")
async def delete_deployed_model(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    deployed_model_id: str,
) -> Response:
    name = ResourceName(account_id, "deployedModels", deployed_model_id)
    async with ctx.work(caller) as work:
        row = await service.delete_deployed_model(work.session, name)
        work.hint(RECONCILE_DEPLOYMENT, row.deployment_uid)
    return reply(Empty())
