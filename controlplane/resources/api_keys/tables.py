from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, now


class ApiKeyRow(Base):
    """An API key: the hash to find it by and the prefix to show; the key itself is never stored."""

    __tablename__ = "api_keys"

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    account_id: Mapped[str] = mapped_column(String(63), index=True)
    user_uid: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.uid", ondelete="CASCADE"), index=True)
    key_id: Mapped[str] = mapped_column(String(63), unique=True)
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(16))
    display_name: Mapped[str] = mapped_column(default="default")
    annotations: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    create_time: Mapped[datetime] = mapped_column(default=now)
    expire_time: Mapped[datetime | None] = mapped_column(default=None)
    last_used: Mapped[datetime | None] = mapped_column(default=None)
    requests_per_minute: Mapped[int | None] = mapped_column(default=None)
    tokens_per_minute: Mapped[int | None] = mapped_column(default=None)
    concurrent_requests: Mapped[int | None] = mapped_column(default=None)
    """Gateways hold the key to these, beside what its account may."""
    session_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("user_sessions.uid", ondelete="CASCADE"), index=True, default=None
    )
    """Of an access token: the sign-in that it belongs to. Such a row is in no list of keys."""
