from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Depends, Response
from sqlalchemy import Select

from controlplane.auth import Caller
from controlplane.context import Context, ContextDep, may
from controlplane.permissions import Grant
from controlplane.resources.api_keys import service
from controlplane.resources.api_keys.listing import LISTING
from controlplane.resources.api_keys.schemas import ApiKey, CreateApiKeyRequest, DeleteApiKeyRequest
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty

router = collection_router("apiKeys")

OF_USER = "/v1/accounts/{account_id:rid}/users/{user_id:rid}/apiKeys"
OF_ACCOUNT = "/v1/accounts/{account_id:rid}/apiKeys"


@router.post(OF_USER, response_model=ApiKey, summary="Create an API key")
async def create_api_key(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    user_id: str,
    body: Annotated[CreateApiKeyRequest, Body()],
) -> Response:
    async with ctx.work(caller) as work:
        user = await service.keys_owner(work.session, caller, account_id, user_id)
        row, key = await service.create_key(work.session, caller, user, body.api_key)
    answer = reply(ApiKey.of(row, user, key))
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.get(OF_USER, response_model=list_of(ApiKey, "apiKeys"), summary="List a user's API keys")
async def list_api_keys(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    user_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    async with ctx.db.session() as session:
        user = await service.keys_owner(session, caller, account_id, user_id)
    return await show_keys(ctx, service.keys_of_user(user), page)


@router.post(OF_USER + ":delete", response_model=Empty, summary="Delete an API key")
async def delete_api_key(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    user_id: str,
    body: Annotated[DeleteApiKeyRequest, Body()],
) -> Response:
    async with ctx.work(caller) as work:
        user = await service.keys_owner(work.session, caller, account_id, user_id)
        await service.delete_key(work.session, service.keys_of_user(user), body.key_id)
    return reply(Empty())


@router.post(OF_ACCOUNT, response_model=ApiKey, summary="Create an API key of the caller")
async def create_own_api_key(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    body: Annotated[CreateApiKeyRequest, Body()],
) -> Response:
    return await create_api_key(ctx, caller, account_id, caller.user_id, body)


@router.get(
    OF_ACCOUNT,
    response_model=list_of(ApiKey, "apiKeys"),
    summary="List the caller's API keys; to an admin, those of all users",
)
async def list_account_api_keys(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    if caller.grant is not Grant.YES:
        return await list_api_keys(ctx, caller, account_id, caller.user_id, page)
    return await show_keys(ctx, service.keys_of_account(account_id), page)


@router.post(
    OF_ACCOUNT + ":delete",
    response_model=Empty,
    summary="Delete an API key of the caller; an admin may name anybody's",
)
async def delete_account_api_key(
    ctx: ContextDep,
    caller: Annotated[Caller, may("keys.manage")],
    account_id: str,
    body: Annotated[DeleteApiKeyRequest, Body()],
) -> Response:
    if caller.grant is not Grant.YES:
        return await delete_api_key(ctx, caller, account_id, caller.user_id, body)
    async with ctx.work(caller) as work:
        await service.delete_key(work.session, service.keys_of_account(account_id), body.key_id)
    return reply(Empty())


async def show_keys(ctx: Context, keys: Select[Any], page: PageRequest) -> Response:
    async with ctx.db.session() as session:
        found = await fetch_page(session, keys, LISTING, page)
        users = await service.owners(session, found.rows)
    shown = [ApiKey.of(row, users[row.user_uid]) for row in found.rows if row.user_uid in users]
    return reply_page("apiKeys", shown, found, page.read_mask)
