from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.resources.accounts.listing import LISTING
from controlplane.resources.accounts.schemas import Account
from controlplane.resources.accounts.tables import AccountRow
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of

router = collection_router("accounts")


@router.get(
    "/v1/accounts",
    response_model=list_of(Account, "accounts"),
    summary="List the accounts that the caller belongs to",
)
async def list_accounts(
    ctx: ContextDep,
    caller: Annotated[Caller, may("account.view")],
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(AccountRow).where(AccountRow.id == caller.account_id)
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
    return reply_page("accounts", [Account.of(row) for row in found.rows], found, page.read_mask)


@router.get("/v1/accounts/{account_id:rid}", response_model=Account, summary="Get an account")
async def get_account(
    ctx: ContextDep, caller: Annotated[Caller, may("account.view")], account_id: str, readMask: str = ""
) -> Response:
    async with ctx.db.session() as session:
        row = await session.get_one(AccountRow, account_id)
    return reply(Account.of(row), readMask)
