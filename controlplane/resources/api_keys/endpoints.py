from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.resources.api_keys import service
from controlplane.resources.api_keys.schemas import ApiKey, CreateApiKeyRequest, DeleteApiKeyRequest
from controlplane.resources.api_keys.tables import ApiKeyRow
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty

router = collection_router("apiKeys")

OF_USER = "/v1/accounts/{account_id:rid}/users/{user_id:rid}/apiKeys"
OF_ACCOUNT = "/v1/accounts/{account_id:rid}/apiKeys"


@router.post(OF_USER, response_model=ApiKey, summary="Create an API key")
async def create_key(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    user_id: str,
    body: Annotated[CreateApiKeyRequest, Body()],
) -> Response:
    async with ctx.work(caller) as work:
        user = await service.keys_owner(work.session, caller, account_id, user_id)
        row, key = service.new_key(user, body.api_key)
        work.session.add(row)
        await work.session.flush()
    return reply(ApiKey.of(row, user, key))


@router.get(OF_USER, response_model=list_of(ApiKey, "apiKeys"), summary="List API keys")
async def list_keys(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    user_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    async with ctx.db.session() as session:
        user = await service.keys_owner(session, caller, account_id, user_id)
        query = select(ApiKeyRow).where(ApiKeyRow.user_uid == user.uid)
        found = await fetch_page(session, query, ApiKeyRow.key_id, page, f"keys of {user.uid}")
    return reply_page("apiKeys", [ApiKey.of(row, user) for row in found.rows], found, page.read_mask)


@router.post(OF_USER + ":delete", response_model=Empty, summary="Delete an API key")
async def delete_key(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    user_id: str,
    body: Annotated[DeleteApiKeyRequest, Body()],
) -> Response:
    async with ctx.work(caller) as work:
        user = await service.keys_owner(work.session, caller, account_id, user_id)
        await service.delete_key(work.session, user, body.key_id)
    return reply(Empty())


@router.post(OF_ACCOUNT, response_model=ApiKey, summary="Create an API key of the caller")
async def create_own_key(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    body: Annotated[CreateApiKeyRequest, Body()],
) -> Response:
    return await create_key(ctx, caller, account_id, caller.user_id, body)


@router.get(OF_ACCOUNT, response_model=list_of(ApiKey, "apiKeys"), summary="List the caller's API keys")
async def list_own_keys(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    return await list_keys(ctx, caller, account_id, caller.user_id, page)


@router.post(OF_ACCOUNT + ":delete", response_model=Empty, summary="Delete one of the caller's API keys")
async def delete_own_key(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    body: Annotated[DeleteApiKeyRequest, Body()],
) -> Response:
    return await delete_key(ctx, caller, account_id, caller.user_id, body)
