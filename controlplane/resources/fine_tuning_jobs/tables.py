from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    TextClause,
    UniqueConstraint,
    and_,
    or_,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, LeaseColumns, ResourceColumns, StateColumns, now
from controlplane.resources.fine_tuning_jobs.states import ACTIVE, LEAVING, PENDING, PLACED

FINE_TUNING_JOBS = "fineTuningJobs"
SUPERVISED_FINE_TUNING_JOBS = "supervisedFineTuningJobs"
DPO_JOBS = "dpoJobs"


def _in(states: tuple[str, ...]) -> TextClause:
    return text(f"state IN ({', '.join(map(repr, states))})")


class FineTuningJobRow(ResourceColumns, StateColumns, LeaseColumns, Base):
    __tablename__ = "fine_tuning_jobs"
    __table_args__ = (
        UniqueConstraint("account_id", "collection", "id"),
        # Two jobs that are still to make the same model would overwrite each other's result.
        Index(
            "uq_fine_tuning_jobs_account_id_model_id",
            "account_id",
            "model_id",
            unique=True,
            postgresql_where=_in(ACTIVE),
        ),
        # However many jobs there have been, who looks for the next one reads only those that wait or run.
        Index(
            "ix_fine_tuning_jobs_queue",
            "account_id",
            "queue_time",
            "uid",
            postgresql_where=text(f"state = '{PENDING}'"),
        ),
        Index("ix_fine_tuning_jobs_placed", "account_id", postgresql_where=_in((*PLACED, *LEAVING))),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
        Index("ix_fine_tuning_jobs_account_id_create_time", "account_id", "collection", "create_time", "uid"),
    )

    collection: Mapped[str] = mapped_column(String(40), default=FINE_TUNING_JOBS)
    """The collection that the job was made through, the only one that knows it."""
    created_by: Mapped[str] = mapped_column(default="")
    kind: Mapped[str] = mapped_column(String(40))
    """`conversation`, `text_completion`, `text_classification` or `preference`."""
    model_id: Mapped[str] = mapped_column(String(63))
    """The id of the model that the job makes, in the job's account."""
    # What the job read. An ended job outlives them; `settings` keeps their names.
    base_model_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("models.uid", ondelete="SET NULL"), index=True
    )
    warm_start_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("models.uid", ondelete="SET NULL"), default=None
    )
    dataset_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("datasets.uid", ondelete="SET NULL"), index=True
    )
    evaluation_dataset_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("datasets.uid", ondelete="SET NULL"), default=None
    )
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The resolved settings: what the user gave, with the base model's defaults filled in."""
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    output_model_uid: Mapped[uuid.UUID | None] = mapped_column(default=None)
    """The model that the result becomes; chosen when the trainer has succeeded."""
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    attempt: Mapped[int] = mapped_column(default=0)
    """Counts trainer processes; each has a folder of its own."""
    crashes: Mapped[int] = mapped_column(default=0)
    """Trainers in a row that ended by themselves without a result and without a new checkpoint."""
    crash_step: Mapped[int] = mapped_column(default=0)
    """The step of the newest checkpoint when the last of them ended."""
    priority: Mapped[int] = mapped_column(default=0)
    queue_time: Mapped[datetime] = mapped_column(default=now)
    """Where it stands among the jobs of its account; see `queueing`."""
    place_time: Mapped[datetime | None] = mapped_column(default=None)
    """When it was given the place that it has; None without one."""
    metered_tokens: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """What it has trained that is in the ledger."""
    wandb_api_key: Mapped[str] = mapped_column(default="")
    """Encrypted; forgotten when the job ends."""
    start_time: Mapped[datetime | None] = mapped_column(default=None)
    end_time: Mapped[datetime | None] = mapped_column(default=None)

    @classmethod
    def has_place(cls) -> ColumnElement[bool]:
        return and_(
            cls.state.in_((*PLACED, *LEAVING)), or_(cls.state.in_(PLACED), cls.place_time.is_not(None))
        )

    @property
    def name(self) -> str:
        return f"accounts/{self.account_id}/{self.collection}/{self.id}"

    @property
    def prefix(self) -> str:
        """Where the job's checkpoints, metrics and adapter lie in the object store."""
        return f"accounts/{self.account_id}/fine-tuning-jobs/{self.uid}/"
