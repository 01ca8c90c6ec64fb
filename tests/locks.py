"""Who waits for whom in the database of a test."""

from __future__ import annotations

from sqlalchemy import text

from controlplane.db import Database


def is_anybody_waiting(db: Database) -> bool:
    """Whether a transaction waits for a lock that another one holds."""
    with db.session() as session:
        waiting = text(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return session.scalar(waiting) is not None
