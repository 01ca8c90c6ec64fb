from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, ResourceColumns


class ReservationRow(ResourceColumns, Base):
    """GPUs that are an account's own for a time: used before on-demand ones, and priced apart."""

    __tablename__ = "reservations"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
    )

    description: Mapped[str] = mapped_column(default="")
    created_by: Mapped[str] = mapped_column(default="")
    accelerator_type: Mapped[str] = mapped_column(String(60))
    reserved_count: Mapped[int]
    region: Mapped[str] = mapped_column(default="")
    multi_region: Mapped[str] = mapped_column(default="")
    start_time: Mapped[datetime]
    end_time: Mapped[datetime]

    @property
    def name(self) -> str:
        return f"accounts/{self.account_id}/reservations/{self.id}"
