from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, LeaseColumns, ResourceColumns, StateColumns, now


class DeploymentRow(ResourceColumns, StateColumns, LeaseColumns, Base):
    """The wanted serving of one base model."""

    __tablename__ = "deployments"
    __table_args__ = (
        # A deleted deployment keeps its row for a while; its id is free again at once.
        Index(
            "uq_deployments_account_id_id",
            "account_id",
            "id",
            unique=True,
            postgresql_where=text("state <> 'DELETED'"),
        ),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
        Index("ix_deployments_account_id_create_time", "account_id", "create_time", "uid"),
        Index("ix_deployments_account_id_state", "account_id", "state", "create_time", "uid"),
    )

    description: Mapped[str] = mapped_column(default="")
    annotations: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_by: Mapped[str] = mapped_column(default="")
    base_model_uid: Mapped[uuid.UUID] = mapped_column(ForeignKey("models.uid"), index=True)
    min_replica_count: Mapped[int] = mapped_column(default=0)
    max_replica_count: Mapped[int] = mapped_column(default=1)
    desired_replica_count: Mapped[int] = mapped_column(default=1)
    autoscaling_policy: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What is set of the policy, as the API's JSON in snake_case."""
    enable_addons: Mapped[bool] = mapped_column(default=False)
    accelerator_type: Mapped[str] = mapped_column(String(60), default="ACCELERATOR_TYPE_UNSPECIFIED")
    accelerator_count: Mapped[int] = mapped_column(default=0)
    precision: Mapped[str] = mapped_column(String(40), default="PRECISION_UNSPECIFIED")
    max_context_length: Mapped[int] = mapped_column(default=0)
    ngram_speculation_length: Mapped[int] = mapped_column(default=0, server_default="0")
    draft_token_count: Mapped[int] = mapped_column(default=0, server_default="0")
    num_lora_device_cached: Mapped[int] = mapped_column(default=0, server_default="0")
    """Addons that stay on the device at a time; 0 is the platform's choice."""
    long_prompt: Mapped[bool] = mapped_column(default=False, server_default="false")
    draft_model: Mapped[str] = mapped_column(default="", server_default="")
    """The name of the model that guesses ahead."""
    draft_model_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("models.uid", ondelete="SET NULL"), default=None, index=True
    )
    """None too of a deleted deployment whose draft model is deleted: a deleted one keeps no draft model."""
    disable_deployment_size_validation: Mapped[bool] = mapped_column(default=False, server_default="false")
    enable_session_affinity: Mapped[bool] = mapped_column(default=False, server_default="false")
    deployment_shape: Mapped[str] = mapped_column(default="", server_default="")
    """The full name of the version of a shape that its settings were taken from."""
    placement: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    """What is stated of where its replicas may run, as the API's JSON in snake_case; empty for anywhere."""
    region: Mapped[str] = mapped_column(String(60), default="", server_default="")
    """Of the node pool that its replicas were placed in last; empty where that has none."""
    generation: Mapped[int] = mapped_column(default=1)
    """Counts the changes that a running engine cannot take: replicas of an older one are replaced."""
    delete_time: Mapped[datetime | None] = mapped_column(default=None)
    purge_time: Mapped[datetime | None] = mapped_column(default=None)
    consecutive_failures: Mapped[int] = mapped_column(default=0)
    """Rounds in which an engine failed, since one was last ready; counts towards backoff and FAILED."""
    retry_at: Mapped[datetime | None] = mapped_column(default=None)
    """No new replica is started before this moment."""

    @property
    def name(self) -> str:
        return f"accounts/{self.account_id}/deployments/{self.id}"


class ScalingRow(Base):
    """What the autoscaler remembers of a deployment from one look to the next."""

    __tablename__ = "deployment_scaling"

    deployment_uid: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("deployments.uid", ondelete="CASCADE"), primary_key=True
    )
    trend: Mapped[dict[str, Any]] = mapped_column(default=dict)
    last_request_time: Mapped[datetime | None] = mapped_column(default=None)
    """As far as it was worth a write: exact once the deployment is quiet."""
    scale_time: Mapped[datetime | None] = mapped_column(default=None)
    reason: Mapped[str] = mapped_column(String(40), default="")
    """Why it was scaled last."""


class ReplicaRow(Base):
    """One running engine, from its start to its end. A restart is a new row."""

    __tablename__ = "replicas"

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    deployment_uid: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("deployments.uid", ondelete="CASCADE"), index=True
    )
    generation: Mapped[int] = mapped_column(default=1)
    state: Mapped[str] = mapped_column(String(40))
    state_time: Mapped[datetime] = mapped_column(default=now)
    """When `state` last changed."""
    reason: Mapped[str] = mapped_column(String(60), default="")
    """Why it failed; empty while it has not, and when it is stopped because nobody wants it any more."""
    message: Mapped[str] = mapped_column(default="")
    host: Mapped[str] = mapped_column(default="")
    port: Mapped[int] = mapped_column(default=0)
    served_name: Mapped[str] = mapped_column(default="")
    """The name under which the engine answers for the base model."""
    health_misses: Mapped[int] = mapped_column(default=0)
    """Looks in a row at a once healthy engine that it did not answer."""
    unhealthy_since: Mapped[datetime | None] = mapped_column(default=None)
    accelerator_type: Mapped[str] = mapped_column(
        String(60),
        default="ACCELERATOR_TYPE_UNSPECIFIED",
        server_default="ACCELERATOR_TYPE_UNSPECIFIED",
    )
    accelerator_count: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many GPUs it holds."""
    serving_since: Mapped[datetime | None] = mapped_column(default=None)
    """From when on its serving is not in the ledger yet; unset while it does not serve."""
    create_time: Mapped[datetime] = mapped_column(default=now)
    ready_time: Mapped[datetime | None] = mapped_column(default=None)
    end_time: Mapped[datetime | None] = mapped_column(default=None)


class ReplicaAdapterRow(Base):
    """What came of loading a deployed model on one replica. It serves there once `proven_at` is set."""

    __tablename__ = "replica_adapters"

    replica_uid: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("replicas.uid", ondelete="CASCADE"), primary_key=True
    )
    deployed_model_uid: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("deployed_models.uid", ondelete="CASCADE"), primary_key=True
    )
    engine_name: Mapped[str]
    """The name under which the engine answers for the adapter."""
    proven_at: Mapped[datetime | None] = mapped_column(default=None)
    """When a probe told its output from the base's; empty while the last attempt to load it failed."""
    status_code: Mapped[str] = mapped_column(String(40), default="OK")
    message: Mapped[str] = mapped_column(default="")
    """Why the last attempt failed."""
    retry_at: Mapped[datetime | None] = mapped_column(default=None)
    """A failed attempt is not repeated before this moment."""
