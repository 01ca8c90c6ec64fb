from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, DateTime, Double, Select, String, cast, column, select, table, values
from sqlalchemy.sql.expression import ColumnClause

from controlplane.resources.quotas.limits import Limit
from controlplane.resources.quotas.schemas import Quota
from controlplane.rest.filters.fields import integer, name_of, number, time
from controlplane.rest.listing import Listing

COLUMNS: tuple[ColumnClause[Any], ...] = (
    column("account_id", String()),
    column("id", String()),
    column("value", BigInteger()),
    column("max_value", BigInteger()),
    column("usage", Double()),
    column("update_time", DateTime(timezone=True)),
)
QUOTAS = table("quotas_now", *COLUMNS)

LISTING = Listing(
    key="quotas",
    message=Quota,
    unique=QUOTAS.c.id,
    fields={
        "name": name_of(("accounts", QUOTAS.c.account_id, "quotas", QUOTAS.c.id)),
        "value": integer(QUOTAS.c.value, nullable=False),
        "max_value": integer(QUOTAS.c.max_value, nullable=False),
        "usage": number(QUOTAS.c.usage, nullable=False),
        "update_time": time(QUOTAS.c.update_time, nullable=True),
    },
)


def quota_ids(limits: Sequence[Limit], usage: Mapping[str, float]) -> Select[Any]:
    """A query for the ids of these quotas, which the list's filter and order apply to.

    Most quotas are no rows of any table; they become a table for the length of the query.
    """
    data = [
        (
            limit.account_id,
            limit.id,
            limit.value,
            limit.max_value,
            usage.get(limit.id, 0.0),
            limit.update_time,
        )
        for limit in limits
    ]
    given = values(*COLUMNS, name="given").data(data)
    named = select(*(cast(given.c[c.name], c.type).label(c.name) for c in COLUMNS)).cte(QUOTAS.name)
    return select(QUOTAS.c.id).add_cte(named)
