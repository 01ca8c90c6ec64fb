from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, now


class UsageRow(Base):
    """One inference request: who asked what of which deployment, and how many tokens it took."""

    __tablename__ = "usage"
    __table_args__ = (Index("ix_usage_account_id_create_time", "account_id", "create_time"),)

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    account_id: Mapped[str] = mapped_column(String(63))
    user_id: Mapped[str] = mapped_column(String(63))
    key_id: Mapped[str] = mapped_column(String(63))
    model: Mapped[str]
    """The full name of the model that answered."""
    deployment: Mapped[str]
    endpoint: Mapped[str] = mapped_column(String(40))
    http_status: Mapped[int]
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    cached_prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    streamed: Mapped[bool] = mapped_column(default=False)
    duration_ms: Mapped[int] = mapped_column(default=0)
    create_time: Mapped[datetime] = mapped_column(default=now)
