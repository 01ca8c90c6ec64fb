from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, ResourceColumns, now


class DeploymentShapeRow(ResourceColumns, Base):
    """How a base model is to be served: settings that deployments take over by naming the shape.

    The row is as its newest version.
    """

    __tablename__ = "deployment_shapes"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
    )

    description: Mapped[str] = mapped_column(default="")
    created_by: Mapped[str] = mapped_column(default="")
    base_model_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("models.uid", ondelete="SET NULL"), index=True
    )
    """None once the model is deleted: the shape fits nothing any more, not even a new model of that name."""
    base_model: Mapped[str]
    model_type: Mapped[str] = mapped_column(default="")
    parameter_count: Mapped[int] = mapped_column(BigInteger, default=0)
    accelerator_type: Mapped[str] = mapped_column(String(60), default="ACCELERATOR_TYPE_UNSPECIFIED")
    accelerator_count: Mapped[int] = mapped_column(default=0)
    precision: Mapped[str] = mapped_column(String(40), default="PRECISION_UNSPECIFIED")
    max_context_length: Mapped[int] = mapped_column(default=0)
    ngram_speculation_length: Mapped[int] = mapped_column(default=0, server_default="0")
    draft_token_count: Mapped[int] = mapped_column(default=0, server_default="0")
    num_lora_device_cached: Mapped[int] = mapped_column(default=0, server_default="0")
    draft_model: Mapped[str] = mapped_column(default="", server_default="")
    enable_addons: Mapped[bool] = mapped_column(default=False)
    enable_session_affinity: Mapped[bool] = mapped_column(default=False, server_default="false")
    disable_speculative_decoding: Mapped[bool] = mapped_column(default=False)
    disable_deployment_size_validation: Mapped[bool] = mapped_column(default=False)
    preset_type: Mapped[str] = mapped_column(String(40), default="PRESET_TYPE_UNSPECIFIED")
    newest_version: Mapped[int] = mapped_column(default=0)

    @property
    def name(self) -> str:
        return f"accounts/{self.account_id}/deploymentShapes/{self.id}"


class DeploymentShapeVersionRow(Base):
    """A shape as it was after a change of it. Only what is said of it, `validated` and `public`, changes."""

    __tablename__ = "deployment_shape_versions"
    __table_args__ = (
        UniqueConstraint("shape_uid", "number"),
        UniqueConstraint("shape_uid", "id"),
        Index("ix_deployment_shape_versions_account_id_shape_id", "account_id", "shape_id"),
        Index(
            "uq_deployment_shape_versions_latest_validated",
            "shape_uid",
            unique=True,
            postgresql_where=text("latest_validated"),
        ),
    )

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    shape_uid: Mapped[uuid.UUID] = mapped_column(ForeignKey("deployment_shapes.uid", ondelete="CASCADE"))
    account_id: Mapped[str] = mapped_column(String(63))
    shape_id: Mapped[str] = mapped_column(String(63))
    id: Mapped[str] = mapped_column(String(63))
    """Random, so that a name never comes to mean another version: shapes may be deleted and made anew."""
    number: Mapped[int]
    """1, 2, 3 …"""
    base_model_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("models.uid", ondelete="SET NULL"), index=True
    )
    snapshot: Mapped[dict[str, Any]]
    """The whole shape as the API shows it."""
    validated: Mapped[bool] = mapped_column(default=False)
    public: Mapped[bool] = mapped_column(default=False)
    latest_validated: Mapped[bool] = mapped_column(default=False)
    create_time: Mapped[datetime] = mapped_column(default=now)

    @property
    def shape_name(self) -> str:
        return f"accounts/{self.account_id}/deploymentShapes/{self.shape_id}"

    @property
    def name(self) -> str:
        return f"{self.shape_name}/versions/{self.id}"
