from __future__ import annotations

import uuid

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, ResourceColumns, StateColumns


class DeployedModelRow(ResourceColumns, StateColumns, Base):
    """A model loaded on a deployment: the base itself, or an addon on top of it."""

    __tablename__ = "deployed_models"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),
        UniqueConstraint("deployment_uid", "model_uid"),
        # One default for each account that deploys the model: a public model has many deployers.
        Index(
            "uq_deployed_models_default",
            "account_id",
            "model_uid",
            unique=True,
            postgresql_where=text('"default"'),
        ),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
        Index("ix_deployed_models_account_id_create_time", "account_id", "create_time", "uid"),
        Index("ix_deployed_models_account_id_state", "account_id", "state", "id"),
    )

    description: Mapped[str] = mapped_column(default="")
    created_by: Mapped[str] = mapped_column(default="")
    model_uid: Mapped[uuid.UUID] = mapped_column(ForeignKey("models.uid"), index=True)
    deployment_uid: Mapped[uuid.UUID] = mapped_column(ForeignKey("deployments.uid", ondelete="CASCADE"))
    default: Mapped[bool] = mapped_column(default=False)
    public: Mapped[bool] = mapped_column(default=False)

    @property
    def name(self) -> str:
        return f"accounts/{self.account_id}/deployedModels/{self.id}"
