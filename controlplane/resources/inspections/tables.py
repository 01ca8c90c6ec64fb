from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, LeaseColumns, StateColumns, now


class InspectionRow(StateColumns, LeaseColumns, Base):
    """What training on a dataset would meet: asked for by a client, found out by a worker, kept for the next.

    It looks to the worker as the job does that would train so. Nothing of it changes once it is READY, as
    neither datasets nor models do; it goes with them.
    """

    __tablename__ = "inspections"
    __table_args__ = (
        UniqueConstraint("account_id", "key"),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
    )

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    account_id: Mapped[str] = mapped_column(String(63))
    key: Mapped[str] = mapped_column(String(64))
    """A hash of all that the report depends on."""
    kind: Mapped[str] = mapped_column(String(40))
    dataset_uid: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.uid", ondelete="CASCADE"), index=True)
    evaluation_dataset_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("datasets.uid", ondelete="CASCADE"), default=None
    )
    base_model_uid: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("models.uid", ondelete="CASCADE"), index=True
    )
    warm_start_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("models.uid", ondelete="CASCADE"), default=None
    )
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """As `FineTuningJobRow.settings`."""
    first_row: Mapped[int] = mapped_column(default=0)
    """The first row to show, from 1; 0: the report, with the dataset's first rows."""
    report: Mapped[dict[str, Any]] = mapped_column(default=dict)
    create_time: Mapped[datetime] = mapped_column(default=now)
    update_time: Mapped[datetime] = mapped_column(default=now, onupdate=now)

    @property
    def name(self) -> str:
        return f"accounts/{self.account_id}/inspections/{self.uid}"

    @property
    def prefix(self) -> str:
        """Where a job would put its results; an inspection has none but its row."""
        return f"accounts/{self.account_id}/fine-tuning-jobs/{self.uid}/"
