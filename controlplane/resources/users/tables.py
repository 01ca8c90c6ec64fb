from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, ResourceColumns, StateColumns


class UserRow(ResourceColumns, StateColumns, Base):
    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),
        Index("uq_users_account_id_lower_email", "account_id", text("lower(email)"), unique=True),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
    )

    email: Mapped[str]
    role: Mapped[str] = mapped_column(String(40))
    service_account: Mapped[bool] = mapped_column(default=False)
