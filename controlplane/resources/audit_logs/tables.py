from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, now


class AuditLogRow(Base):
    """One change that somebody made through the API, written in the transaction that made it.

    Or one that was refused: `status_code` is then `PERMISSION_DENIED`.
    """

    __tablename__ = "audit_logs"
    __table_args__ = (
        Index("ix_audit_logs_account_id_create_time", "account_id", "create_time", "uid"),
        Index("ix_audit_logs_create_time", "create_time"),
    )

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    account_id: Mapped[str] = mapped_column(String(63))
    create_time: Mapped[datetime] = mapped_column(default=now)
    user_id: Mapped[str] = mapped_column(String(63))
    email: Mapped[str]
    key_id: Mapped[str] = mapped_column(String(63))
    """The API key, or the signed-in session, that was used."""
    action: Mapped[str] = mapped_column(String(80))
    """The method's name, such as `CreateModel`."""
    resource: Mapped[str]
    """The resource's full name."""
    request: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The body that was sent, without its write-only fields; only the fields' names when it is large."""
    query: Mapped[str] = mapped_column(default="")
    client_address: Mapped[str] = mapped_column(String(64), default="")
    status_code: Mapped[str] = mapped_column(String(40), default="OK", server_default="OK")
    status_message: Mapped[str] = mapped_column(default="", server_default="")
