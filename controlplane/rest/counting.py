"""How many rows a list has: exactly as far as it is quick to count, and PostgreSQL's estimate beyond."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

COUNTED = 10_000
"""Up to here the number is exact."""


async def count(session: AsyncSession, query: Select[Any]) -> int:
    matching = query.with_only_columns(literal(1)).order_by(None)
    counted = await session.scalar(select(func.count()).select_from(matching.limit(COUNTED + 1).subquery()))
    if counted is None or counted <= COUNTED:
        return counted or 0
    plan = (await session.execute(Explain(matching))).scalar_one()
    return max(counted, int(plan[0]["Plan"]["Plan Rows"]))


class Explain(Executable, ClauseElement):
    """PostgreSQL's plan for a query, as JSON."""

    inherit_cache = False

    def __init__(self, query: Select[Any]) -> None:
        self.query = query


@compiles(Explain)
def _compile_explain(element: Explain, compiler: SQLCompiler, **options: Any) -> str:
    return "EXPLAIN (FORMAT JSON) " + compiler.process(element.query, **options)
