from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Query, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.names import ResourceName
from controlplane.resources.users import service
from controlplane.resources.users.listing import LISTING
from controlplane.resources.users.schemas import User
from controlplane.resources.users.tables import UserRow
from controlplane.rest.access import find
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty

router = collection_router("users", "/v1/accounts/{account_id:rid}/users")


@router.post("", response_model=User, summary="Create a user")
async def create_user(
    ctx: ContextDep,
    caller: Annotated[Caller, may("users.manage")],
    account_id: str,
    body: Annotated[User, Body()],
    user_id: Annotated[str, Query(alias="userId")] = "",
) -> Response:
    async with ctx.work(caller) as work:
        row = await service.create_user(
            work.session, account_id, user_id, body, ctx.settings.platform_account
        )
    return reply(User.of(row))


@router.get("", response_model=list_of(User, "users"), summary="List users")
async def list_users(
    ctx: ContextDep,
    caller: Annotated[Caller, may("users.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(UserRow).where(UserRow.account_id == account_id)
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
    return reply_page("users", [User.of(row) for row in found.rows], found, page.read_mask)


@router.get("/{user_id:rid}", response_model=User, summary="Get a user")
async def get_user(
    ctx: ContextDep,
    caller: Annotated[Caller, may("users.view")],
    account_id: str,
    user_id: str,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, UserRow, ResourceName(account_id, "users", user_id))
    return reply(User.of(row), readMask)


@router.patch("/{user_id:rid}", response_model=User, summary="Update a user")
async def update_user(
    ctx: ContextDep,
    caller: Annotated[Caller, may("users.manage")],
    account_id: str,
    user_id: str,
    body: Annotated[User, Body()],
    updateMask: str = "",
) -> Response:
    async with ctx.work(caller) as work:
        name = ResourceName(account_id, "users", user_id)
        row = await service.update_user(work.session, name, body, updateMask)
        await work.session.flush()
    return reply(User.of(row))


@router.delete("/{user_id:rid}", response_model=Empty, summary="Delete a user and the user's keys")
async def delete_user(
    ctx: ContextDep, caller: Annotated[Caller, may("users.manage")], account_id: str, user_id: str
) -> Response:
    async with ctx.work(caller) as work:
        await service.delete_user(work.session, ResourceName(account_id, "users", user_id))
    return reply(Empty())
