from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import Body, Depends, Query, Response
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.errors import invalid, not_found
from controlplane.names import ResourceName, parse_name
from controlplane.resources.deployment_shapes import service
from controlplane.resources.deployment_shapes.choice import newest_only, readable_versions
from controlplane.resources.deployment_shapes.listing import OWN_SHAPES, PUBLIC_SHAPES
from controlplane.resources.deployment_shapes.schemas import DeploymentShape, shape_message, snapshot_of
from controlplane.resources.models.service import find_readable
from controlplane.resources.tables import DeploymentShapeRow, DeploymentShapeVersionRow
from controlplane.rest.access import find
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty

router = collection_router("deploymentShapes", "/v1/accounts/{account_id:rid}/deploymentShapes")


@router.post("", response_model=DeploymentShape, summary="Create a deployment shape, and its first version")
async def create_deployment_shape(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[DeploymentShape, Body()],
    deployment_shape_id: Annotated[
        str, Query(alias="deploymentShapeId", description="Random when unset.")
    ] = "",
) -> Response:
    async with ctx.work(caller) as work:
        row = await service.create_shape(work.session, caller, deployment_shape_id, body)
        message = shape_message(row)
    return reply(message)


@router.get(
    "",
    response_model=list_of(DeploymentShape, "deploymentShapes"),
    summary="List deployment shapes; of another account, what is public of them",
)
async def list_deployment_shapes(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view", other_accounts=True)],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
    target_model: Annotated[
        str, Query(alias="targetModel", description="Only shapes for this model, or for an addon's base.")
    ] = "",
) -> Response:
    refuse_wildcard(account_id)
    async with ctx.db.session() as session:
        base = await target_base(session, caller, target_model)
        if account_id == caller.account_id:
            own: Select[Any] = select(DeploymentShapeRow).where(DeploymentShapeRow.account_id == account_id)
            query = own.where(DeploymentShapeRow.base_model_uid == base) if base else own
            found = await fetch_page(session, query, OWN_SHAPES, page)
            messages = [shape_message(row) for row in found.rows]
        else:
            theirs = public_shapes(caller, account_id)
            query = theirs.where(DeploymentShapeVersionRow.base_model_uid == base) if base else theirs
            found = await fetch_page(session, query, PUBLIC_SHAPES, page)
            messages = [snapshot_of(row) for row in found.rows]
    return reply_page("deploymentShapes", messages, found, page.read_mask)


@router.get("/{shape_id:rid}", response_model=DeploymentShape, summary="Get a deployment shape")
async def get_deployment_shape(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view", other_accounts=True)],
    account_id: str,
    shape_id: str,
    skip_shape_validation: Annotated[
        bool,
        Query(alias="skipShapeValidation", description="Has no effect: a shape is shown, validated or not."),
    ] = False,
    readMask: str = "",
) -> Response:
    """Of another account's shape, its newest public version."""
    refuse_wildcard(account_id)
    name = ResourceName(account_id, service.COLLECTION, shape_id)
    async with ctx.db.session() as session:
        if account_id == caller.account_id:
            message = shape_message(await find(session, DeploymentShapeRow, name))
        else:
            query = public_shapes(caller, account_id).where(DeploymentShapeVersionRow.shape_id == shape_id)
            version = await session.scalar(query)
            if version is None:
                raise not_found(str(name))
            message = snapshot_of(version)
    return reply(message, readMask)


@router.patch(
    "/{shape_id:rid}",
    response_model=DeploymentShape,
    summary="Change a deployment shape, which makes a new version of it",
)
async def update_deployment_shape(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    shape_id: str,
    body: Annotated[DeploymentShape, Body()],
    updateMask: str = "",
    from_latest_validated: Annotated[
        bool,
        Query(
            alias="fromLatestValidated",
            description="Change what its latest validated version says, not what the shape says now.",
        ),
    ] = False,
) -> Response:
    async with ctx.work(caller) as work:
        row = await service.update_shape(
            work.session,
            ResourceName(account_id, service.COLLECTION, shape_id),
            body,
            updateMask,
            from_validated=from_latest_validated,
        )
        message = shape_message(row)
    return reply(message)


@router.delete("/{shape_id:rid}", response_model=Empty, summary="Delete a deployment shape and its versions")
async def delete_deployment_shape(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.change")], account_id: str, shape_id: str
) -> Response:
    """Deployments that were made with it stay as they are."""
    async with ctx.work(caller) as work:
        await service.delete_shape(work.session, ResourceName(account_id, service.COLLECTION, shape_id))
    return reply(Empty())


def public_shapes(caller: Caller, account_id: str) -> Select[Any]:
    """The newest version of each of another account's shapes that the caller may read."""
    return select(DeploymentShapeVersionRow).where(
        DeploymentShapeVersionRow.account_id == account_id,
        readable_versions(caller),
        newest_only(caller, validated=False),
    )


async def target_base(session: AsyncSession, caller: Caller, given: str) -> uuid.UUID | None:
    """The base model of `targetModel`: the model itself, or the one that it is an addon of."""
    if not given:
        return None
    name = parse_name(given, "models", caller.account_id, "targetModel")
    model = await find_readable(session, caller, name)
    return model.base_model_uid or model.uid


def refuse_wildcard(account_id: str) -> None:
    if account_id == "-":
        raise invalid("the account - is not supported: shapes are listed one account at a time")
