"""A bound on what the statements of one transaction may cost the database."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession


async def limit_statements(session: AsyncSession, seconds: float) -> None:
    """End statements of this transaction that take longer; the caller is told so with 504."""
    limit = func.set_config("statement_timeout", str(max(1, round(seconds * 1000))), True)
    await session.execute(select(limit))
