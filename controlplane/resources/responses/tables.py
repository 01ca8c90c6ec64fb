from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, now


class ResponseRow(Base):
    """An answer that its caller wanted kept, for a while: gateways write it, read it, and forget it."""

    __tablename__ = "responses"
    __table_args__ = (
        Index(
            "ix_responses_account_id_create_time",
            "account_id",
            "create_time",
            "id",
            postgresql_include=["size"],
        ),
        Index("ix_responses_create_time", "create_time"),
    )

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    account_id: Mapped[str] = mapped_column(String(63))
    previous_id: Mapped[str | None] = mapped_column(String(63), default=None)
    """The response that it goes on from, of the same account."""
    input: Mapped[list[Any]]
    """The items that were asked with it, without those of earlier responses."""
    body: Mapped[dict[str, Any]]
    """The response as its caller got it."""
    size: Mapped[int] = mapped_column(default=0, server_default="0")
    """Bytes of both, as JSON."""
    create_time: Mapped[datetime] = mapped_column(default=now)
