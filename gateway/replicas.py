"""The snapshot of routes: read from Postgres in one pass about once a second, kept while Postgres is away."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.checks.tool_calls import CallForm, call_form
from controlplane.db import AsyncDatabase
from controlplane.resources.tables import (
    DeployedModelRow,
    DeploymentRow,
    ModelRow,
    ReplicaAdapterRow,
    ReplicaRow,
)
from gateway.snapshot import Deployment, Model, Route, Snapshot, Target

BASE_KIND = "HF_BASE_MODEL"
HUB = "https://huggingface.co/"
REMOVED_STATES = ("DELETING", "DELETED")


@dataclass(frozen=True)
class RouteRows:
    """One consistent read of the tables that routes are made from."""

    deployments: Sequence[DeploymentRow]
    deployed_models: Sequence[DeployedModelRow]
    models: Sequence[ModelRow]
    replicas: Sequence[ReplicaRow]
    adapters: Sequence[ReplicaAdapterRow]


async def load_rows(session: AsyncSession) -> RouteRows:
    """Everything routable, as of one moment: no statement sees what a later commit changed."""
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    deployments = select(DeploymentRow).where(DeploymentRow.state.not_in(REMOVED_STATES))
    loaded = select(DeployedModelRow).where(DeployedModelRow.state != "UNDEPLOYING")
    used = select(ModelRow).where(
        ModelRow.uid.in_(select(DeployedModelRow.model_uid))
        | ModelRow.uid.in_(select(DeploymentRow.base_model_uid))
    )
    ready = select(ReplicaRow).where(ReplicaRow.state == "READY")
    proven = select(ReplicaAdapterRow).where(ReplicaAdapterRow.proven_at.is_not(None))
    return RouteRows(
        (await session.scalars(deployments)).all(),
        (await session.scalars(loaded)).all(),
        (await session.scalars(used)).all(),
        (await session.scalars(ready)).all(),
        (await session.scalars(proven)).all(),
    )


async def read_snapshot(database: AsyncDatabase, seconds: float) -> Snapshot:
    """The routes as they are now; raises when Postgres does not answer within `seconds`."""
    async with asyncio.timeout(seconds), database.session() as session:
        rows = await load_rows(session)
    return build_snapshot(rows)


def build_snapshot(rows: RouteRows) -> Snapshot:
    """Routes for every deployed model whose deployment stands. Pure."""
    models = {row.uid: row for row in rows.models}
    replicas: defaultdict[uuid.UUID, list[ReplicaRow]] = defaultdict(list)
    for replica in sorted(rows.replicas, key=lambda replica: replica.uid):
        replicas[replica.deployment_uid].append(replica)
    ready = Counter({uid: len(found) for uid, found in replicas.items()})
    deployments = {row.uid: row for row in rows.deployments}
    engine_names = {(row.deployed_model_uid, row.replica_uid): row.engine_name for row in rows.adapters}
    routes = []
    for loaded in rows.deployed_models:
        deployment = deployments.get(loaded.deployment_uid)
        if deployment is None:
            continue
        model, base = models[loaded.model_uid], models[deployment.base_model_uid]
        here = replicas[deployment.uid]
        is_base = model.uid == base.uid
        targets = _base_targets(here) if is_base else _addon_targets(here, loaded.uid, engine_names)
        served = _deployment(deployment, base, ready[deployment.uid])
        routes.append(_route(loaded, _model(model, base, served), served, targets, is_base=is_base))
    return Snapshot.of(routes)


def _base_targets(replicas: Sequence[ReplicaRow]) -> tuple[Target, ...]:
    return tuple(Target(replica.uid, _url(replica), replica.served_name) for replica in replicas)


def _addon_targets(
    replicas: Sequence[ReplicaRow],
    deployed_model_uid: uuid.UUID,
    engine_names: dict[tuple[uuid.UUID, uuid.UUID], str],
) -> tuple[Target, ...]:
    """The replicas on which a probe has told this addon from its base."""
    named = ((replica, engine_names.get((deployed_model_uid, replica.uid))) for replica in replicas)
    return tuple(Target(replica.uid, _url(replica), name) for replica, name in named if name)


def _url(replica: ReplicaRow) -> str:
    host = f"[{replica.host}]" if ":" in replica.host else replica.host
    return f"http://{host}:{replica.port}"


def _deployment(row: DeploymentRow, base: ModelRow, ready_replicas: int) -> Deployment:
    context_length = row.max_context_length or base.context_length
    return Deployment(
        row.uid,
        row.account_id,
        row.id,
        row.state,
        row.status_message,
        context_length,
        ready_replicas,
        row.desired_replica_count,
        row.max_replica_count,
        bool(row.ngram_speculation_length or row.draft_model),
        row.enable_session_affinity,
    )


def _model(row: ModelRow, base: ModelRow, deployment: Deployment) -> Model:
    """An addon speaks with its base's chat template unless it brings its own."""
    own, of_base = _template(row), _template(base)
    template = own if own != of_base else None
    return Model(
        account_id=row.account_id,
        id=row.id,
        kind=row.kind,
        public=row.public,
        create_time=row.create_time,
        context_length=deployment.context_length,
        supports_chat=own is not None or of_base is not None,
        supports_image_input=row.supports_image_input,
        supports_tools=row.supports_tools or base.supports_tools,
        call_form=_own_form(row, base, template) if template else base.call_form,
        template=template,
        task=base.task,
        hub_name=row.hugging_face_url.removeprefix(HUB).strip("/")
        if row.hugging_face_url.startswith(HUB)
        else "",
        supports_audio_input=bool(base.facts.get("supports_audio_input")),
    )


def _template(row: ModelRow) -> str | None:
    template: str | None = (row.conversation_config or {}).get("template")
    return template or None


def _own_form(row: ModelRow, base: ModelRow, template: str) -> CallForm:
    """The engine has one reader of calls, its base's: calls of another form are asked for in words."""
    form = call_form(template, str(base.facts.get("model_type") or ""), row.supports_tools)
    return form if form.parser == base.call_form.parser else replace(form, parser=None)


def _route(
    row: DeployedModelRow, model: Model, deployment: Deployment, targets: tuple[Target, ...], *, is_base: bool
) -> Route:
    return Route(
        account_id=row.account_id,
        id=row.id,
        state=row.state,
        status_code=row.status_code,
        status_message=row.status_message,
        default=row.default,
        public=row.public,
        is_base=is_base,
        create_time=row.create_time,
        model=model,
        deployment=deployment,
        targets=targets if row.state in ("DEPLOYED", "UPDATING") else (),
    )
