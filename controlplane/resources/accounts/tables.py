from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, StateColumns, now
from controlplane.resources.accounts.states import UNSUSPENDED


class AccountRow(StateColumns, Base):
    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    display_name: Mapped[str] = mapped_column(default="")
    email: Mapped[str] = mapped_column(default="")
    account_type: Mapped[str] = mapped_column(String(40), default="ENTERPRISE")
    suspend_state: Mapped[str] = mapped_column(String(40), default=UNSUSPENDED, server_default=UNSUSPENDED)
    place_time: Mapped[datetime | None] = mapped_column(default=None)
    """When one of its jobs was last given one of the trainers' places: accounts take turns."""
    create_time: Mapped[datetime] = mapped_column(default=now)
    update_time: Mapped[datetime] = mapped_column(default=now, onupdate=now)
