"""Objects that no row names any more: recorded with the delete, removed by a worker afterwards."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, now


class GarbageRow(Base):
    """A key prefix of the object store that is to be emptied."""

    __tablename__ = "garbage"

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    prefix: Mapped[str]
    create_time: Mapped[datetime] = mapped_column(default=now)
    due_time: Mapped[datetime] = mapped_column(default=now, server_default=func.now(), index=True)
    """When to empty it: at once, and again when nobody can be writing there any more."""
