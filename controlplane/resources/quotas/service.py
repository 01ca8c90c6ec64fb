"""What may be created, and what may grow: one call for each, made before the row is inserted."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.db import now
from controlplane.node_pools import NODE_POOLS
from controlplane.resources.datasets.tables import DatasetRow
from controlplane.resources.deployed_models.states import UNDEPLOYING
from controlplane.resources.deployed_models.tables import DeployedModelRow
from controlplane.resources.deployments.accelerators import UNSPECIFIED, local_devices
from controlplane.resources.deployments.planned import (
    Asking,
    leaves_open,
    planned_accelerators,
    unsized_accelerators,
)
from controlplane.resources.deployments.states import LEAVING
from controlplane.resources.deployments.tables import DeploymentRow
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.quotas.catalog import (
    DATASETS,
    DEPLOYED_ADDONS,
    MODELS,
    accelerator_quota,
)
from controlplane.resources.quotas.limits import SHOWN_NAMES, lock_quota, used_up
from controlplane.resources.quotas.spend import refuse_overspent
from controlplane.resources.reservations.service import active_between, reserved_at

INSTANT = timedelta(microseconds=1)
HOLDING = (
    DeploymentRow.id,
    DeploymentRow.base_model_uid,
    DeploymentRow.draft_model_uid,
    DeploymentRow.accelerator_type,
    DeploymentRow.accelerator_count,
    DeploymentRow.max_replica_count,
    DeploymentRow.precision,
    DeploymentRow.max_context_length,
    DeploymentRow.disable_deployment_size_validation,
    DeploymentRow.long_prompt,
    DeploymentRow.placement,
)
"""What of deployments tells how many GPUs they hold: accounts may have thousands."""


@dataclass(frozen=True)
class Held:
    """What a deployment may take at most: its replicas, and the GPUs that they hold."""

    replicas: int
    accelerator_type: str = UNSPECIFIED
    accelerators: int = 0

    @classmethod
    def by(cls, session: AsyncSession, row: Any, base: Any, draft: Any = None) -> Held:
        """Of a deployment's row, or one of the columns `HOLDING`; its models as the planner takes them."""
        pools, replicas = session.info.get(NODE_POOLS), row.max_replica_count
        each = planned_accelerators(row, base, pools, draft) if pools else accelerators_a_replica(row)
        return cls(replicas, row.accelerator_type or UNSPECIFIED, replicas * each)


NOTHING = Held(0)


@dataclass(frozen=True)
class Counted:
    """What counts towards a quota, of the account `account_id`: statements that are put together once."""

    rows: Select[Any]
    all: Select[Any]
    up_to: Select[Any]
    """Counting ends at `most`: it costs no more than that, however much there is."""

    @classmethod
    def of(cls, table: Any, rows: Select[Any]) -> Counted:
        found = rows.with_only_columns(table.uid)
        enough = found.limit(bindparam("most")).subquery()
        return cls(
            rows.order_by(table.id),
            select(func.count()).select_from(found.subquery()),
            select(func.count()).select_from(enough),
        )


def own_rows(table: Any, account_id: Any) -> Select[Any]:
    return select(table).where(table.account_id == account_id)


def deployed_addons(account_id: Any) -> Select[Any]:
    return (
        own_rows(DeployedModelRow, account_id)
        .join(DeploymentRow, DeploymentRow.uid == DeployedModelRow.deployment_uid)
        .where(
            DeployedModelRow.model_uid != DeploymentRow.base_model_uid,
            DeployedModelRow.state != UNDEPLOYING,
        )
    )


OWN_MODELS = Counted.of(ModelRow, own_rows(ModelRow, bindparam("account_id")))
OWN_DATASETS = Counted.of(DatasetRow, own_rows(DatasetRow, bindparam("account_id")))
OWN_ADDONS = Counted.of(DeployedModelRow, deployed_addons(bindparam("account_id")))


async def claim_model(session: AsyncSession, account_id: str) -> None:
    """Refuse a model more than the account may have."""
    await claim(session, account_id, MODELS, OWN_MODELS)


async def claim_dataset(session: AsyncSession, account_id: str, wanted: int = 1) -> None:
    await claim(session, account_id, DATASETS, OWN_DATASETS, wanted)


async def claim_addon(session: AsyncSession, account_id: str) -> None:
    """Refuse an addon more than the account may have deployed. Bases do not count."""
    await claim(session, account_id, DEPLOYED_ADDONS, OWN_ADDONS)


async def allow_job(session: AsyncSession, account_id: str) -> None:
    """Refuse a job to who may spend no more, or may not have the model that comes of it."""
    await refuse_overspent(session, account_id)
    await claim_model(session, account_id)


async def allow_growth(
    session: AsyncSession,
    row: DeploymentRow,
    base: ModelRow,
    draft: ModelRow | None = None,
    before: Held = NOTHING,
) -> None:
    """Refuse a deployment, or a change of one, that takes more than the account may have.

    `before` is what the deployment held. What shrinks is never refused, whatever the account is over.
    """
    wanted = Held.by(session, row, base, draft)
    if wanted.replicas > before.replicas or wanted.accelerators > before.accelerators:
        await refuse_overspent(session, row.account_id)
    kept = before.accelerators if before.accelerator_type == wanted.accelerator_type else 0
    if wanted.accelerators > kept:
        await claim_accelerators(session, row, wanted)


async def claim_accelerators(session: AsyncSession, row: DeploymentRow, wanted: Held) -> None:
    """Refuse more on-demand GPUs than the quota; reserved ones are taken first, and do not count."""
    quota_id = accelerator_quota(wanted.accelerator_type)
    limit = await lock_quota(session, row.account_id, quota_id)
    others = [
        (name, held.accelerators)
        for name, held in await holders(
            session,
            row.account_id,
            DeploymentRow.accelerator_type == wanted.accelerator_type,
            DeploymentRow.id != row.id,
        )
    ]
    reserved = await reserved_now(session, row.account_id, wanted.accelerator_type)
    held = sum(count for _, count in others)
    if held + wanted.accelerators - reserved <= limit.value:
        return
    kind = "GPUs" if wanted.accelerator_type == UNSPECIFIED else wanted.accelerator_type
    most = f"{limit.value:,} on-demand {kind}" + (f" besides {reserved:,} reserved" if reserved else "")
    used = f"this takes {wanted.accelerators:,} (replicas × accelerators), while {held:,} are held"
    names = [f"{name} ({count:,})" for name, count in sorted(others, key=lambda item: (-item[1], item[0]))]
    raise used_up(limit, most, used, names, len(names))


async def claim(
    session: AsyncSession, account_id: str, quota_id: str, counted: Counted, wanted: int = 1
) -> None:
    limit = await lock_quota(session, account_id, quota_id)
    sent = {"account_id": account_id, "most": limit.value}
    there = await session.scalar(counted.up_to, sent) or 0
    if there + wanted <= limit.value:
        return
    rows = (await session.scalars(counted.rows.limit(SHOWN_NAMES), sent)).all()
    used = await session.scalar(counted.all, sent) or 0
    words = f"{used:,} are there" if wanted == 1 else f"{wanted:,} are asked for, while {used:,} are there"
    raise used_up(limit, f"{limit.value:,}", words, [row.name for row in rows], used)


async def count_of(session: AsyncSession, counted: Select[Any]) -> int:
    return int(await session.scalar(select(func.count()).select_from(counted.subquery())) or 0)


async def holders(
    session: AsyncSession, account_id: str, *which: ColumnElement[bool]
) -> Sequence[tuple[str, Held]]:
    """(name, what it holds) of the account's deployments with GPUs, or `which` of them."""
    query = select(*HOLDING).where(
        DeploymentRow.account_id == account_id,
        DeploymentRow.state.not_in(LEAVING),
        DeploymentRow.max_replica_count > 0,
        may_hold(session),
        *which,
    )
    rows: Sequence[Any] = (await session.execute(query)).all()
    models = await models_of(session, rows)
    found = [
        (row, Held.by(session, row, models.get(row.base_model_uid), models.get(row.draft_model_uid)))
        for row in rows
    ]
    return [(f"accounts/{account_id}/deployments/{row.id}", held) for row, held in found if held.accelerators]


def may_hold(session: AsyncSession) -> ColumnElement[bool]:
    """Not those that leave GPUs open where that means none: in a region it may mean something else."""
    pools = session.info.get(NODE_POOLS)
    if pools.has_gpus(UNSPECIFIED) if pools else local_devices():
        return true()
    asks = or_(DeploymentRow.accelerator_count > 0, DeploymentRow.accelerator_type != UNSPECIFIED)
    return or_(asks, DeploymentRow.placement != {}) if pools else asks


async def models_of(session: AsyncSession, rows: Sequence[Any]) -> dict[uuid.UUID, Any]:
    """What the planner has to know of the models of those that leave their GPUs open, each once."""
    pools = session.info.get(NODE_POOLS)
    open_ones = [row for row in rows if pools and leaves_open(row, pools)]
    wanted = {uid for row in open_ones for uid in (row.base_model_uid, row.draft_model_uid) if uid}
    if not wanted:
        return {}
    query = select(ModelRow.uid, ModelRow.files, ModelRow.facts, ModelRow.context_length)
    return {base.uid: base for base in await session.execute(query.where(ModelRow.uid.in_(wanted)))}


async def reserved_now(session: AsyncSession, account_id: str, accelerator_type: str) -> int:
    moment = now()
    query = active_between(account_id, accelerator_type, moment, moment + INSTANT)
    return reserved_at(await session.scalars(query), moment)


def accelerators_a_replica(row: Asking) -> int:
    """How many GPUs each of its replicas holds on a machine that has any."""
    asked = row.accelerator_count or (row.accelerator_type or UNSPECIFIED) != UNSPECIFIED
    return unsized_accelerators(row) if asked or local_devices() else 0
