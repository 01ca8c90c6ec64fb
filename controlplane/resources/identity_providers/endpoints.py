from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Query, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.encryption import Cipher
from controlplane.names import ResourceName
from controlplane.resources.identity_providers import service
from controlplane.resources.identity_providers.listing import LISTING
from controlplane.resources.identity_providers.schemas import IdentityProvider
from controlplane.resources.identity_providers.tables import IdentityProviderRow
from controlplane.rest.access import find
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty

router = collection_router("identityProviders", "/v1/accounts/{account_id:rid}/identityProviders")


@router.post("", response_model=IdentityProvider, summary="Set up sign-in with an identity provider")
async def create_identity_provider(
    ctx: ContextDep,
    caller: Annotated[Caller, may("identity.manage")],
    account_id: str,
    body: Annotated[IdentityProvider, Body()],
    provider_id: Annotated[str, Query(alias="identityProviderId")],
) -> Response:
    body.refuse_unsupported()
    cipher = Cipher.from_settings(ctx.settings)
    await service.check_issuer(ctx.issuers, body.oidc_config)
    async with ctx.work(caller) as work:
        row = await service.create_provider(work.session, cipher, account_id, provider_id, body)
    return reply(IdentityProvider.of(row))


@router.get(
    "", response_model=list_of(IdentityProvider, "identityProviders"), summary="List identity providers"
)
async def list_identity_providers(
    ctx: ContextDep,
    caller: Annotated[Caller, may("identity.manage")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(IdentityProviderRow).where(IdentityProviderRow.account_id == account_id)
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
    messages = [IdentityProvider.of(row) for row in found.rows]
    return reply_page("identityProviders", messages, found, page.read_mask)


@router.get("/{provider_id:rid}", response_model=IdentityProvider, summary="Get an identity provider")
async def get_identity_provider(
    ctx: ContextDep,
    caller: Annotated[Caller, may("identity.manage")],
    account_id: str,
    provider_id: str,
    readMask: str = "",
) -> Response:
    name = ResourceName(account_id, "identityProviders", provider_id)
    async with ctx.db.session() as session:
        row = await find(session, IdentityProviderRow, name)
    return reply(IdentityProvider.of(row), readMask)


@router.patch("/{provider_id:rid}", response_model=IdentityProvider, summary="Update an identity provider")
async def update_identity_provider(
    ctx: ContextDep,
    caller: Annotated[Caller, may("identity.manage")],
    account_id: str,
    provider_id: str,
    body: Annotated[IdentityProvider, Body()],
    updateMask: str = "",
) -> Response:
    name = ResourceName(account_id, "identityProviders", provider_id)
    cipher = Cipher.from_settings(ctx.settings)
    async with ctx.db.session() as session:
        config = await service.changed_config(session, name, body, updateMask)
    if config is not None:
        await service.check_issuer(ctx.issuers, config)
    async with ctx.work(caller) as work:
        row = await service.update_provider(work.session, cipher, caller, name, body, updateMask)
        await work.session.flush()
    return reply(IdentityProvider.of(row))


@router.delete(
    "/{provider_id:rid}", response_model=Empty, summary="Delete an identity provider, and sign out its people"
)
async def delete_identity_provider(
    ctx: ContextDep, caller: Annotated[Caller, may("identity.manage")], account_id: str, provider_id: str
) -> Response:
    name = ResourceName(account_id, "identityProviders", provider_id)
    async with ctx.work(caller) as work:
        await service.delete_provider(work.session, name)
    return reply(Empty())
