from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Query, Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.names import ResourceName
from controlplane.queue import RECONCILE_DEPLOYMENT
from controlplane.resources.deployments import service
from controlplane.resources.deployments.schemas import Deployment, ScaleDeploymentRequest, deployment_message
from controlplane.resources.deployments.states import DELETED
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.tables import DeploymentRow
from controlplane.rest.access import find
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty

router = collection_router("deployments", "/v1/accounts/{account_id:rid}/deployments")

# What clients may ask to be left out, and never is in.
NoShapes = Annotated[
    bool, Query(alias="skipShapeValidation", description="Has no effect: there are no deployment shapes.")
]
NoShapesEither = Annotated[
    bool, Query(alias="acceptShapelessRisk", description="Has no effect: there are no deployment shapes.")
]
NoDraft = Annotated[
    bool,
    Query(alias="disableSpeculativeDecoding", description="Has no effect: nothing is decoded speculatively."),
]
NoImages = Annotated[
    bool, Query(alias="skipImageTagValidation", description="Has no effect: image tags are not looked at.")
]


@router.post("", response_model=Deployment, summary="Create a deployment of a base model")
async def create_deployment(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[Deployment, Body()],
    deployment_id: Annotated[str, Query(alias="deploymentId", description="Random when unset.")] = "",
    disable_auto_deploy: Annotated[
        bool, Query(alias="disableAutoDeploy", description="Do not deploy the base model on it.")
    ] = False,
    validate_only: Annotated[
        bool, Query(alias="validateOnly", description="Check, answer as if, and create nothing.")
    ] = False,
    skip_shape_validation: NoShapes = False,
    accept_shapeless_risk: NoShapesEither = False,
    disable_speculative_decoding: NoDraft = False,
    skip_image_tag_validation: NoImages = False,
    dry_run: Annotated[bool, Query(alias="dryRun", description="The older name of validateOnly.")] = False,
) -> Response:
    async with ctx.work(caller) as work:
        row, base = await service.create_deployment(
            work.session, caller, deployment_id, body, deploy_base=not disable_auto_deploy
        )
        message = deployment_message(row, base, {})
        if validate_only or dry_run:
            await work.session.rollback()
        else:
            work.hint(RECONCILE_DEPLOYMENT, row.uid)
    return reply(message)


@router.get("", response_model=list_of(Deployment, "deployments"), summary="List deployments")
async def list_deployments(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
    show_deleted: Annotated[bool, Query(alias="showDeleted", description="List deleted ones too.")] = False,
) -> Response:
    query = select(DeploymentRow).where(DeploymentRow.account_id == account_id)
    if not show_deleted:
        query = query.where(DeploymentRow.state != DELETED)
    scope = f"deployments of {account_id} {show_deleted}"
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, DeploymentRow.page_key, page, scope)
        rows = list(found.rows)
        bases = await service.base_models(session, rows)
        counts = await service.replica_counts(session, [row.uid for row in rows])
    messages = [deployment_message(row, bases[row.base_model_uid], counts.get(row.uid, {})) for row in rows]
    return reply_page("deployments", list(messages), found, page.read_mask)


@router.get("/{deployment_id:rid}", response_model=Deployment, summary="Get a deployment")
async def get_deployment(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    deployment_id: str,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, DeploymentRow, ResourceName(account_id, "deployments", deployment_id))
        message = await _shown(session, row, await session.get_one(ModelRow, row.base_model_uid))
    return reply(message, readMask)


@router.patch("/{deployment_id:rid}", response_model=Deployment, summary="Update a deployment")
async def update_deployment(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    deployment_id: str,
    body: Annotated[Deployment, Body()],
    updateMask: str = "",
    skip_shape_validation: NoShapes = False,
) -> Response:
    async with ctx.work(caller) as work:
        name = ResourceName(account_id, "deployments", deployment_id)
        row, base = await service.update_deployment(work.session, name, body, updateMask)
        message = await _shown(work.session, row, base)
        work.hint(RECONCILE_DEPLOYMENT, row.uid)
    return reply(message)


@router.patch("/{deployment_id:rid}:scale", response_model=Empty, summary="Set the number of replicas")
async def scale_deployment(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    deployment_id: str,
    body: Annotated[ScaleDeploymentRequest, Body()],
) -> Response:
    """Within minReplicaCount and maxReplicaCount. It stays there: nothing scales by itself yet."""
    async with ctx.work(caller) as work:
        name = ResourceName(account_id, "deployments", deployment_id)
        row = await service.scale_deployment(work.session, name, body.replica_count)
        work.hint(RECONCILE_DEPLOYMENT, row.uid)
    return reply(Empty())


@router.delete("/{deployment_id:rid}", response_model=Empty, summary="Delete a deployment")
async def delete_deployment(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    deployment_id: str,
    hard: Annotated[bool, Query(description="Keep no record of it.")] = False,
    ignore_checks: Annotated[
        bool, Query(alias="ignoreChecks", description="Even while addons are deployed on it.")
    ] = False,
) -> Response:
    """Its replicas are stopped; then it is DELETED, and forgotten after a week."""
    async with ctx.work(caller) as work:
        name = ResourceName(account_id, "deployments", deployment_id)
        row = await service.delete_deployment(work.session, name, hard=hard, ignore_checks=ignore_checks)
        work.hint(RECONCILE_DEPLOYMENT, row.uid)
    return reply(Empty())


async def _shown(session: AsyncSession, row: DeploymentRow, base: ModelRow) -> Deployment:
    counts = await service.replica_counts(session, [row.uid])
    return deployment_message(row, base, counts.get(row.uid, {}))
