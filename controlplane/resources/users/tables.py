from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, ResourceColumns, StateColumns


class UserRow(ResourceColumns, StateColumns, Base):
    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),
        UniqueConstraint("account_id", "email"),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
    )

    email: Mapped[str]
    role: Mapped[str] = mapped_column(String(40))
    service_account: Mapped[bool] = mapped_column(default=False)
