from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped

from controlplane.db import Base, ResourceColumns


class SecretRow(ResourceColumns, Base):
    """A value that the platform keeps for its account: it is encrypted, and never shown again."""

    __tablename__ = "secrets"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
    )

    key_name: Mapped[str]
    """What the value is called where it is used, such as `WANDB_API_KEY`."""
    encrypted_value: Mapped[str]
