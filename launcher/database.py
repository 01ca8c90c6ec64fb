"""One transaction of a command on the database that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

Result = TypeVar("Result")


def in_session(work: Callable[[Session], Result]) -> Result:
    """What `work` returns; what is wrong around it is told in one line, with exit status 1."""
    from controlplane.config import load_settings
    from controlplane.db import Database
    from launcher.setup import told_plainly

    database = Database(load_settings().database_url, pool_size=1)
    try:
        with told_plainly(), database.session() as session:
            return work(session)
    finally:
        database.close()
