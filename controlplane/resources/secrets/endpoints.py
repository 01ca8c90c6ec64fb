from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.encryption import Cipher
from controlplane.names import ResourceName
from controlplane.resources.secrets import service
from controlplane.resources.secrets.listing import LISTING
from controlplane.resources.secrets.schemas import CreateSecretRequest, Secret
from controlplane.resources.secrets.tables import SecretRow
from controlplane.rest.access import find
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty

router = collection_router("secrets", "/v1/accounts/{account_id:rid}/secrets")


@router.post("", response_model=Secret, summary="Create a secret")
async def create_secret(
    ctx: ContextDep,
    caller: Annotated[Caller, may("secrets.manage")],
    account_id: str,
    body: Annotated[CreateSecretRequest, Body()],
) -> Response:
    cipher = Cipher.from_settings(ctx.settings)
    async with ctx.work(caller) as work:
        row = await service.create_secret(work.session, cipher, account_id, body)
    return reply(Secret.of(row))


@router.get("", response_model=list_of(Secret, "secrets"), summary="List secrets, without their values")
async def list_secrets(
    ctx: ContextDep,
    caller: Annotated[Caller, may("secrets.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(SecretRow).where(SecretRow.account_id == account_id)
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
    return reply_page("secrets", [Secret.of(row) for row in found.rows], found, page.read_mask)


@router.get("/{secret_id:rid}", response_model=Secret, summary="Get a secret, without its value")
async def get_secret(
    ctx: ContextDep,
    caller: Annotated[Caller, may("secrets.view")],
    account_id: str,
    secret_id: str,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, SecretRow, ResourceName(account_id, "secrets", secret_id))
    return reply(Secret.of(row), readMask)


@router.patch("/{secret_id:rid}", response_model=Secret, summary="Update a secret")
async def update_secret(
    ctx: ContextDep,
    caller: Annotated[Caller, may("secrets.manage")],
    account_id: str,
    secret_id: str,
    body: Annotated[Secret, Body()],
    updateMask: str = "",
) -> Response:
    name = ResourceName(account_id, "secrets", secret_id)
    cipher = Cipher.from_settings(ctx.settings)
    async with ctx.work(caller) as work:
        row = await service.update_secret(work.session, cipher, name, body, updateMask)
        await work.session.flush()
    return reply(Secret.of(row))


@router.delete("/{secret_id:rid}", response_model=Empty, summary="Delete a secret")
async def delete_secret(
    ctx: ContextDep, caller: Annotated[Caller, may("secrets.manage")], account_id: str, secret_id: str
) -> Response:
    async with ctx.work(caller) as work:
        await service.delete_secret(work.session, ResourceName(account_id, "secrets", secret_id))
    return reply(Empty())
