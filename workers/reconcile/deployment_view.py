"""What a round knows of a deployment: its rows as they were read, and the plain values of its plan."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.resources.deployments.states import Replica
from controlplane.resources.tables import (
    DeployedModelRow,
    DeploymentRow,
    ModelRow,
    ReplicaAdapterRow,
    ReplicaRow,
)
from workers.runtimes.base import ReplicaObservation


@dataclass(frozen=True)
class Status:
    """State, code, reason and message of a row."""

    state: str
    message: str = ""
    reason: str = ""
    code: str = "OK"


@dataclass(frozen=True)
class AdapterView:
    """What came of loading an addon on a replica; neither proven nor failed while that is under way."""

    proven: bool = False
    code: str = "OK"
    message: str = ""
    retry_at: datetime | None = None

    @property
    def failed(self) -> bool:
        return not self.proven and self.code != "OK"


@dataclass(frozen=True)
class ReplicaView:
    uid: uuid.UUID
    state: str
    create_time: datetime
    state_time: datetime
    generation: int = 1
    was_ready: bool = False
    health_misses: int = 0
    unhealthy_since: datetime | None = None
    reason: str = ""
    message: str = ""
    adapters: Mapping[uuid.UUID, AdapterView] = field(default_factory=dict)
    """By deployed model."""
    seen: ReplicaObservation | None = None
    """None where nobody looked: at ended replicas, and when only rows are described."""

    def has_settled(self, addon: uuid.UUID) -> bool:
        found = self.adapters.get(addon)
        return found is not None and (found.proven or found.failed)


@dataclass(frozen=True)
class DeployedModelView:
    uid: uuid.UUID
    state: str
    is_addon: bool


@dataclass(frozen=True)
class DeploymentView:
    status: Status
    desired: int
    generation: int = 1
    failures: int = 0
    retry_at: datetime | None = None
    replicas: tuple[ReplicaView, ...] = ()
    models: tuple[DeployedModelView, ...] = ()

    @property
    def state(self) -> str:
        return self.status.state


@dataclass(frozen=True)
class Rows:
    """A deployment and all that its lease covers."""

    deployment: DeploymentRow
    base: ModelRow
    replicas: list[ReplicaRow]
    models: dict[uuid.UUID, tuple[DeployedModelRow, ModelRow]]
    """By deployed model."""
    adapters: list[ReplicaAdapterRow]
    draft: ModelRow | None = None
    """The model that guesses ahead for the base."""

    @property
    def intent(self) -> tuple[object, ...]:
        return intent_of(self.deployment)


def intent_of(row: DeploymentRow) -> tuple[object, ...]:
    """What a user's change touches. A plan made for another intent is not carried out."""
    return row.state, row.desired_replica_count, row.generation, row.consecutive_failures, row.retry_at


def load(session: Session, uid: uuid.UUID) -> Rows:
    deployment = session.get_one(DeploymentRow, uid)
    replicas = session.scalars(
        select(ReplicaRow).where(ReplicaRow.deployment_uid == uid).order_by(ReplicaRow.create_time)
    ).all()
    models = session.execute(
        select(DeployedModelRow, ModelRow)
        .join(ModelRow, ModelRow.uid == DeployedModelRow.model_uid)
        .where(DeployedModelRow.deployment_uid == uid)
        .order_by(DeployedModelRow.create_time)
    )
    adapters = session.scalars(
        select(ReplicaAdapterRow).where(
            ReplicaAdapterRow.replica_uid.in_([replica.uid for replica in replicas])
        )
    ).all()
    return Rows(
        deployment,
        session.get_one(ModelRow, deployment.base_model_uid),
        list(replicas),
        {deployed.uid: (deployed, model) for deployed, model in models},
        list(adapters),
        session.get_one(ModelRow, deployment.draft_model_uid) if deployment.draft_model_uid else None,
    )


def live(rows: Rows) -> list[ReplicaRow]:
    """The replicas of which something may still run."""
    return [row for row in rows.replicas if row.state != Replica.FAILED]


def view_of(rows: Rows, seen: Mapping[uuid.UUID, ReplicaObservation] | None = None) -> DeploymentView:
    deployment = rows.deployment
    return DeploymentView(
        status=Status(deployment.state, deployment.status_message, deployment.reason, deployment.status_code),
        desired=deployment.desired_replica_count,
        generation=deployment.generation,
        failures=deployment.consecutive_failures,
        retry_at=deployment.retry_at,
        replicas=tuple(_replica(row, rows, (seen or {}).get(row.uid)) for row in rows.replicas),
        models=tuple(
            DeployedModelView(deployed.uid, deployed.state, model.uid != rows.base.uid)
            for deployed, model in rows.models.values()
        ),
    )


def _replica(row: ReplicaRow, rows: Rows, seen: ReplicaObservation | None) -> ReplicaView:
    return ReplicaView(
        uid=row.uid,
        state=row.state,
        create_time=row.create_time,
        state_time=row.state_time,
        generation=row.generation,
        was_ready=row.ready_time is not None,
        health_misses=row.health_misses,
        unhealthy_since=row.unhealthy_since,
        reason=row.reason,
        message=row.message,
        adapters={
            adapter.deployed_model_uid: AdapterView(
                adapter.proven_at is not None, adapter.status_code, adapter.message, adapter.retry_at
            )
            for adapter in rows.adapters
            if adapter.replica_uid == row.uid
        },
        seen=seen,
    )
