from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.errors import invalid, not_found
from controlplane.names import ResourceName
from controlplane.resources.deployment_shapes import matching, service
from controlplane.resources.deployment_shapes.choice import ShapeRules, find_version, readable_versions
from controlplane.resources.deployment_shapes.endpoints import refuse_wildcard
from controlplane.resources.deployment_shapes.listing import VERSIONS
from controlplane.resources.deployment_shapes.schemas import (
    DeploymentShapeVersion,
    MatchDeploymentShapeVersionsRequest,
    version_message,
)
from controlplane.resources.tables import DeploymentShapeRow, DeploymentShapeVersionRow
from controlplane.rest.access import find
from controlplane.rest.paging import Page, PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of

router = collection_router("deploymentShapeVersions", "/v1/accounts/{account_id:rid}")
PATH = "/deploymentShapes/{shape_id:rid}/versions"


@router.get(
    PATH,
    response_model=list_of(DeploymentShapeVersion, "deploymentShapeVersions"),
    summary="List a shape's versions, or with the shape - those of all the account's shapes",
)
async def list_deployment_shape_versions(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view", other_accounts=True)],
    account_id: str,
    shape_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    refuse_wildcard(account_id)
    query = select(DeploymentShapeVersionRow).where(
        DeploymentShapeVersionRow.account_id == account_id, readable_versions(caller)
    )
    async with ctx.db.session() as session:
        if shape_id != "-":
            query = query.where(DeploymentShapeVersionRow.shape_id == shape_id)
            name = ResourceName(account_id, service.COLLECTION, shape_id)
            if account_id == caller.account_id:
                await find(session, DeploymentShapeRow, name)
            elif await session.scalar(query.limit(1)) is None:
                raise not_found(str(name))
        found = await fetch_page(session, query, VERSIONS, page)
    messages = [version_message(row) for row in found.rows]
    return reply_page("deploymentShapeVersions", messages, found, page.read_mask)


@router.get(
    PATH + "/{version_id:rid}", response_model=DeploymentShapeVersion, summary="Get a version of a shape"
)
async def get_deployment_shape_version(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view", other_accounts=True)],
    account_id: str,
    shape_id: str,
    version_id: str,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        row = await find_version(session, caller, account_id, shape_id, version_id)
    return reply(version_message(row), readMask)


@router.patch(
    PATH + "/{version_id:rid}",
    response_model=DeploymentShapeVersion,
    summary="Say of a version that it is validated, or public",
)
async def update_deployment_shape_version(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    shape_id: str,
    version_id: str,
    body: Annotated[DeploymentShapeVersion, Body()],
    updateMask: str = "",
) -> Response:
    shape = ResourceName(account_id, service.COLLECTION, shape_id)
    async with ctx.work(caller) as work:
        row = await service.update_version(work.session, caller, shape, version_id, body, updateMask)
        message = version_message(row)
    return reply(message)


@router.post(
    "/deploymentShapeVersions:match",
    response_model=list_of(DeploymentShapeVersion, "deploymentShapeVersions"),
    summary="Find the versions that a deployment could be created with, the newest first",
)
async def match_deployment_shape_versions(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    body: Annotated[MatchDeploymentShapeVersionsRequest, Body()],
) -> Response:
    """An addon stands for its base model. Nothing fits when the list is empty."""
    request = body.create_deployment_request
    if request.parent not in (f"accounts/{account_id}", account_id):
        raise invalid(
            f"parent {request.parent!r} is another account than accounts/{account_id} of the path", "parent"
        )
    rules = ShapeRules(ctx.settings.platform_account, request.skip_shape_validation)
    async with ctx.db.session() as session:
        rows = await matching.matches(session, caller, request.deployment, rules)
    messages = [version_message(row) for row in rows]
    return reply_page("deploymentShapeVersions", messages, Page(rows, "", len(rows)))
