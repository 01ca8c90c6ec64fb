from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, now


class QuotaRow(Base):
    """Where an account's quota differs from the platform's defaults. Most accounts have none."""

    __tablename__ = "quotas"
    __table_args__ = (ForeignKeyConstraint(["account_id"], ["accounts.id"]),)

    account_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    value: Mapped[int | None] = mapped_column(BigInteger, default=None)
    """What the account's admin has set."""
    max_value: Mapped[int | None] = mapped_column(BigInteger, default=None)
    """What the platform's operator has set for this account."""
    update_time: Mapped[datetime] = mapped_column(default=now, onupdate=now)
