from __future__ import annotations

import uuid
from datetime import date, datetime

from sqlalchemy import BigInteger, Date, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, now


class LedgerRow(Base):
    """One thing that an account used, and what it costs. Entries are added, and never changed.

    The uid is made of what was used, or is chosen once where it is used: an entry that is written again
    is there already.
    """

    __tablename__ = "ledger"
    __table_args__ = (
        Index("ix_ledger_account_id_create_time", "account_id", "create_time"),
        # What others use of an account's deployments; an account's use of its own is the most, and not in it.
        Index(
            "ix_ledger_owner_id_create_time",
            "owner_id",
            "create_time",
            postgresql_where=text("owner_id <> account_id"),
        ),
        Index(
            "ix_ledger_deployment_create_time",
            "deployment",
            "create_time",
            postgresql_where=text("product = 'deployment'"),
        ),
        Index(
            "ix_ledger_account_id_create_time_reserved",
            "account_id",
            "create_time",
            postgresql_where=text("reserved_count > 0"),
        ),
    )

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    account_id: Mapped[str] = mapped_column(String(63))
    """Who used it, and pays."""
    user_id: Mapped[str] = mapped_column(String(63))
    key_id: Mapped[str] = mapped_column(String(63))
    model: Mapped[str]
    """The full name of the model that answered; of a deployment or a job, its base model's."""
    deployment: Mapped[str]
    endpoint: Mapped[str] = mapped_column(String(40))
    http_status: Mapped[int]
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    cached_prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    streamed: Mapped[bool] = mapped_column(default=False)
    duration_ms: Mapped[int] = mapped_column(default=0)
    """Of a request, how long it took; of a replica, how long it served."""
    create_time: Mapped[datetime] = mapped_column(default=now)
    """When it was used; of an interval, its start."""
    owner_id: Mapped[str] = mapped_column(String(63), server_default="")
    """The account that the deployment belongs to."""
    product: Mapped[str] = mapped_column(String(20), server_default="inference")
    job: Mapped[str] = mapped_column(server_default="")
    end_time: Mapped[datetime | None]
    """The end of an interval."""
    accelerator_type: Mapped[str | None] = mapped_column(String(60))
    accelerator_count: Mapped[int | None]
    """How many GPUs the replica held; 0 for an engine on the CPU."""
    reserved_count: Mapped[int | None]
    """How many of them were reserved ones."""
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cost_nanos: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """In billionths of a US dollar."""


class SpendRow(Base):
    """What an account's use of one resource has cost in a month: the sum of its entries."""

    __tablename__ = "spend"

    month: Mapped[date] = mapped_column(Date, primary_key=True)
    account_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    resource: Mapped[str] = mapped_column(primary_key=True)
    """A deployment, a job, or a model that another account serves."""
    cost_nanos: Mapped[int] = mapped_column(BigInteger)
