from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, LeaseColumns, ResourceColumns, StateColumns


class DatasetRow(ResourceColumns, StateColumns, LeaseColumns, Base):
    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
        Index("ix_datasets_account_id_create_time", "account_id", "create_time", "uid"),
        Index("ix_datasets_account_id_state", "account_id", "state", "id"),
    )

    format: Mapped[str] = mapped_column(String(40), default="FORMAT_UNSPECIFIED")
    example_count: Mapped[int] = mapped_column(BigInteger, default=0)
    estimated_token_count: Mapped[int] = mapped_column(BigInteger, default=0)
    average_turn_count: Mapped[float] = mapped_column(default=0.0)
    created_by: Mapped[str] = mapped_column(default="")
    files: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """file name → {"size": int, "sha256": str}; `sha256` is empty until the check has read the file."""
    report: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The last check's report: counts, and the first hundred bad rows with line and reason."""
    source_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("datasets.uid", ondelete="SET NULL"), default=None, index=True
    )
    """The dataset that this one is made from, as long as that is there."""
    source: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """How it is made from that: {"kind": "transformed" | "splitted", "name", "format"}, and of a part also
    {"first", "count"}, its rows counted from 0. Empty for what is uploaded."""

    @property
    def name(self) -> str:
        return f"accounts/{self.account_id}/datasets/{self.id}"

    @property
    def prefix(self) -> str:
        """Where the dataset's files lie in the object store."""
        return f"accounts/{self.account_id}/datasets/{self.uid}/"
