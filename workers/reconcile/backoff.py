"""How long to wait before what failed is tried again."""

from __future__ import annotations

from datetime import timedelta

FIRST_BACKOFF_SECONDS = 1
LAST_BACKOFF_SECONDS = 60


def backoff(failures: int) -> timedelta:
    """1, 2, 4, … seconds, up to a minute."""
    seconds: int = FIRST_BACKOFF_SECONDS << min(failures - 1, 16)
    return timedelta(seconds=min(seconds, LAST_BACKOFF_SECONDS))
