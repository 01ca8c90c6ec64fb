from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Query, Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.db import now
from controlplane.errors import unimplemented
from controlplane.names import ResourceName
from controlplane.queue import RECONCILE_DEPLOYMENT
from controlplane.resources.deployment_shapes.choice import ShapeRules
from controlplane.resources.deployments import deletion, metrics, service
from controlplane.resources.deployments.listing import LISTING
from controlplane.resources.deployments.schemas import (
    Deployment,
    DeploymentMetrics,
    ScaleDeploymentRequest,
    TerminationMessage,
    deployment_message,
    replica_stats,
)
from controlplane.resources.deployments.states import DELETED
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.tables import DeploymentRow
from controlplane.rest.access import find
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty

router = collection_router("deployments", "/v1/accounts/{account_id:rid}/deployments")

SkipShapes = Annotated[
    bool,
    Query(
        alias="skipShapeValidation",
        description="The shape need not be validated, and what the request says itself wins over it.",
    ),
]
Shapeless = Annotated[
    bool,
    Query(
        alias="acceptShapelessRisk",
        description="Says that no shape is wanted, and excludes deploymentShape. Nobody has to say so.",
    ),
]
NoDraft = Annotated[
    bool,
    Query(
        alias="disableSpeculativeDecoding",
        description="Nothing is guessed ahead, whatever the shape and the base model say; "
        "excludes ngramSpeculationLength and draftModel.",
    ),
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
    skip_shape_validation: SkipShapes = False,
    accept_shapeless_risk: Shapeless = False,
    disable_speculative_decoding: NoDraft = False,
    skip_image_tag_validation: NoImages = False,
    dry_run: Annotated[bool, Query(alias="dryRun", description="The older name of validateOnly.")] = False,
) -> Response:
    rules = ShapeRules(
        ctx.settings.platform_account,
        skip_shape_validation,
        accept_shapeless_risk,
        disable_speculative_decoding,
    )
    async with ctx.work(caller) as work:
        row, base = await service.create_deployment(
            work.session, caller, deployment_id, body, rules, deploy_base=not disable_auto_deploy
        )
        message = deployment_message(row, base, {})
        work.is_rehearsal = validate_only or dry_run
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
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
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
    skip_shape_validation: SkipShapes = False,
) -> Response:
    rules = ShapeRules(ctx.settings.platform_account, skip_shape_validation)
    async with ctx.work(caller) as work:
        name = ResourceName(account_id, "deployments", deployment_id)
        row, base = await service.update_deployment(work.session, caller, name, body, updateMask, rules)
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
    """Within minReplicaCount and maxReplicaCount. The autoscaler goes on from there."""
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
        bool, Query(alias="ignoreChecks", description="Even while it is in use.")
    ] = False,
) -> Response:
    """Its replicas are stopped; then it is DELETED, and forgotten after a week.

    One with addons deployed on it, or with inference within the last hour, is in use.
    """
    async with ctx.work(caller) as work:
        name = ResourceName(account_id, "deployments", deployment_id)
        row = await deletion.delete_deployment(work.session, name, hard=hard, ignore_checks=ignore_checks)
        work.hint(RECONCILE_DEPLOYMENT, row.uid)
    return reply(Empty())


@router.post("/{deployment_id:rid}:undelete", response_model=Deployment, summary="Undelete a deployment")
async def undelete_deployment(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    deployment_id: str,
    body: Annotated[Empty, Body(default_factory=Empty)],
) -> Response:
    """Until its purgeTime. Its base model is deployed on it again; addons have to be loaded anew."""
    async with ctx.work(caller) as work:
        name = ResourceName(account_id, "deployments", deployment_id)
        row, base = await service.undelete_deployment(work.session, caller, name)
        message = await _shown(work.session, row, base)
        work.hint(RECONCILE_DEPLOYMENT, row.uid)
    return reply(message)


@router.get(
    "/{deployment_id:rid}:metrics",
    response_model=DeploymentMetrics,
    summary="Get how a deployment was used lately (deprecated)",
)
async def get_deployment_metrics(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    deployment_id: str,
    time_range: Annotated[
        str,
        Query(alias="timeRange", description="How far back, such as 30m, 1h, 7d or 3600s; 1h when unset."),
    ] = "",
) -> Response:
    length = metrics.read_range(time_range)
    async with ctx.db.session() as session:
        row = await find(session, DeploymentRow, ResourceName(account_id, "deployments", deployment_id))
        counts = await service.replica_counts(session, [row.uid])
        used = await metrics.usage_since(session, row, now() - length)
    seconds = min(length, now() - row.create_time).total_seconds()
    replicas = replica_stats(counts.get(row.uid, {})).total
    return reply(DeploymentMetrics(metrics=metrics.metrics(used, replicas, max(seconds, 1.0))))


@router.get(
    "/{deployment_id:rid}/terminationMessage",
    response_model=TerminationMessage,
    summary="Get why a deployment's last replica that failed did so",
)
async def get_termination_message(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.view")], account_id: str, deployment_id: str
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, DeploymentRow, ResourceName(account_id, "deployments", deployment_id))
        message = await metrics.termination_message(session, row)
    return reply(TerminationMessage(message=message))


@router.get(
    "/{deployment_id:rid}/shards", response_model=Empty, summary="Not available: replicas have no shards"
)
async def list_deployment_shards(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.view")], account_id: str, deployment_id: str
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, DeploymentRow, ResourceName(account_id, "deployments", deployment_id))
    text = f"shards of {row.name} cannot be listed: a replica is one engine, which is not divided"
    raise unimplemented(text)


@router.delete(
    "/{deployment_id:rid}/ledger", response_model=Empty, summary="Not available: what was metered stays"
)
async def delete_deployment_ledger(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.change")], account_id: str, deployment_id: str
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, DeploymentRow, ResourceName(account_id, "deployments", deployment_id))
    raise unimplemented(f"the ledger of {row.name} cannot be deleted: bills are made from it")


async def _shown(session: AsyncSession, row: DeploymentRow, base: ModelRow) -> Deployment:
    counts = await service.replica_counts(session, [row.uid])
    return deployment_message(row, base, counts.get(row.uid, {}))
