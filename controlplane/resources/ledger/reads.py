"""Usage and what it costs, as the API shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Select, func, literal, select
from sqlalchemy.exc import DataError
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import invalid
from controlplane.resources.ledger.queries import (
    DEDICATED,
    DIMENSIONS,
    SERVERLESS,
    TRAINED,
    USAGE_TYPES,
    VIEWS,
    Period,
    View,
    bounds,
    served_query,
    usage_query,
)
from controlplane.resources.ledger.schemas import (
    BillingSummary,
    BillingUsage,
    DeploymentUsage,
    LineItem,
    Money,
    ServedUsage,
    TokenUsage,
    TrainingUsage,
    UsageBucket,
    UsageRow,
)

LONGEST_USAGE = timedelta(days=31)
LONGEST_SUMMARY = timedelta(days=366)
MOST_ROWS = 10_000
ANY_TYPE = "USAGE_TYPE_UNSPECIFIED"
TIMEZONE = re.compile(r"[A-Za-z0-9_+\-/]{1,64}")


@dataclass(frozen=True)
class UsageRequest:
    account_id: str
    period: Period
    usage_type: str = ANY_TYPE
    group_by: Sequence[str] = ()
    chosen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values of dimensions that usage is filtered by."""

    def views(self) -> dict[str, View]:
        return {key: view for key, view in VIEWS.items() if self.usage_type in (ANY_TYPE, view.usage_type)}


def check_period(start: datetime, end: datetime, longest: timedelta) -> None:
    if start >= end:
        raise invalid("startTime must be before endTime", "startTime")
    if end - start > longest:
        raise invalid(f"endTime must be at most {longest.days} days after startTime", "endTime")


def check_request(request: UsageRequest) -> None:
    check_period(request.period.start, request.period.end, LONGEST_USAGE)
    if request.usage_type not in (ANY_TYPE, *USAGE_TYPES):
        raise invalid(
            f"usageType {request.usage_type!r} is none of {', '.join((ANY_TYPE, *USAGE_TYPES))}", "usageType"
        )
    known = {name for view in request.views().values() for name in view.dimensions}
    for name in request.group_by:
        if name not in known:
            listed = ", ".join(dimension for dimension in DIMENSIONS if dimension in known)
            raise invalid(f"groupBy {name!r} is none of {listed}", "groupBy")


async def billing_usage(session: AsyncSession, request: UsageRequest) -> BillingUsage:
    await check_timezone(session, request.period.timezone)
    shown = BillingUsage()
    for key, view in request.views().items():
        if request.chosen.keys() - view.dimensions.keys():
            continue  # nothing here has what is asked for
        wanted = request.group_by or view.grouped_by
        dimensions = [name for name in wanted if name in view.dimensions]
        query = usage_query(request.account_id, view, request.period, dimensions, request.chosen)
        rows = await rows_of(session, query, request.period)
        setattr(shown, key, [MESSAGES[key](row, dimensions, view.usage_type) for row in rows])
    if request.usage_type in (ANY_TYPE, DEDICATED) and not request.chosen:
        served = served_query(request.account_id, request.period)
        shown.served_to_others = [
            served_message(row) for row in await rows_of(session, served, request.period)
        ]
    return shown


async def rows_of(session: AsyncSession, query: Select[Any], period: Period) -> Sequence[Any]:
    found: Sequence[Any] = (await session.execute(bounds(query, period).limit(MOST_ROWS + 1))).all()
    if len(found) > MOST_ROWS:
        raise invalid(
            f"this has more than {MOST_ROWS:,} rows; ask for fewer days, or group by less", "groupBy"
        )
    return found


async def check_timezone(session: AsyncSession, timezone: str) -> None:
    unknown = invalid(f"timezone {timezone!r} is not known; it is a name such as Europe/London", "timezone")
    if not TIMEZONE.fullmatch(timezone):
        raise unknown
    try:
        async with session.begin_nested():
            await session.execute(select(func.timezone(timezone, literal(datetime.now(UTC)))))
    except DataError:
        raise unknown from None


def seconds(ms: int) -> int:
    """Whole seconds, as the wire has them; costs are computed from the milliseconds."""
    return round(ms / 1000)


def common(row: Any, dimensions: Sequence[str], usage_type: str) -> dict[str, Any]:
    return {
        "start_time": row.day_start,
        "end_time": row.day_end,
        "usage_type": usage_type,
        "group": {name: getattr(row, name) for name in dimensions},
        "total_cost": Money.of(int(row.cost)),
    }


def tokens(row: Any) -> dict[str, int]:
    return {
        "request_count": row.requests,
        "prompt_tokens": row.prompt,
        "cached_prompt_tokens": row.cached,
        "completion_tokens": row.completion,
    }


def token_message(row: Any, dimensions: Sequence[str], usage_type: str) -> UsageRow:
    return TokenUsage(
        **common(row, dimensions, usage_type),
        **tokens(row),
        model_name=getattr(row, "model_name", ""),
        api_key_id=getattr(row, "api_key_id", ""),
    )


def deployment_message(row: Any, dimensions: Sequence[str], usage_type: str) -> UsageRow:
    return DeploymentUsage(
        **common(row, dimensions, usage_type),
        deployment_id=last_part(getattr(row, "deployment_name", "")),
        base_model=getattr(row, "base_model", ""),
        accelerator_type=getattr(row, "accelerator_type", ""),
        accelerator_seconds=seconds(row.gpu_ms),
        reserved_accelerator_seconds=seconds(row.reserved_ms),
        replica_seconds=seconds(row.replica_ms),
    )


def training_message(row: Any, dimensions: Sequence[str], usage_type: str) -> UsageRow:
    job = getattr(row, "job_name", "")
    return TrainingUsage(
        **common(row, dimensions, usage_type),
        job_id=last_part(job),
        job_type=job.split("/")[2] if job else "",
        base_model=getattr(row, "base_model", ""),
        tokens=int(row.trained),
    )


def served_message(row: Any) -> ServedUsage:
    return ServedUsage(
        start_time=row.day_start,
        end_time=row.day_end,
        deployment_id=last_part(row.deployment_name),
        model_name=row.model_name,
        **tokens(row),
    )


def last_part(name: str) -> str:
    return name.rpartition("/")[2]


MESSAGES = {
    "serverless_costs": token_message,
    "dedicated_costs": deployment_message,
    "dedicated_tokens": token_message,
    "training_costs": training_message,
}

# (the list of usage, what it is grouped by, what its quantity counts)
SUMMED = (
    ("serverless_costs", "model_name", "tokens"),
    ("dedicated_costs", "deployment_name", "accelerator_seconds"),
    ("training_costs", "job_name", "trained_tokens"),
)


async def billing_summary(session: AsyncSession, account_id: str, period: Period) -> BillingSummary:
    """What each product came to, in all and day by day."""
    items: list[tuple[datetime, datetime, LineItem, int]] = []
    for key, dimension, category in SUMMED:
        query = usage_query(account_id, VIEWS[key], period, [dimension], {})
        items += [
            (row.day_start, row.day_end, line_item(row, key, dimension, category), int(row.cost))
            for row in await rows_of(session, query, period)
        ]
    days = groupby(sorted(items, key=lambda item: item[0]), key=lambda item: item[:2])
    return BillingSummary(
        line_items=added_up(items),
        usage_buckets=[
            UsageBucket(start_time=start, end_time=end, line_items=[item[2] for item in group])
            for (start, end), group in days
        ],
        total_cost=Money.of(sum(item[3] for item in items)),
    )


def line_item(row: Any, key: str, dimension: str, category: str) -> LineItem:
    quantity = {
        SERVERLESS: row.prompt + row.completion,
        DEDICATED: row.gpu_ms / 1000,
        TRAINED: row.trained,
    }[VIEWS[key].usage_type]
    return LineItem(
        category=category,
        grouping_key=dimension,
        grouping_value=getattr(row, dimension),
        quantity=float(quantity),
        series=VIEWS[key].usage_type,
        total_cost=Money.of(int(row.cost)),
    )


def added_up(items: Iterable[tuple[Any, Any, LineItem, int]]) -> list[LineItem]:
    """One item for each thing, over all days."""
    sums: dict[tuple[str, str], tuple[LineItem, int]] = {}
    for *_, item, cost in items:
        key = item.series, item.grouping_value
        before, paid = sums.get(key, (item.model_copy(update={"quantity": 0.0}), 0))
        together = before.model_copy(update={"quantity": before.quantity + item.quantity})
        sums[key] = together, paid + cost
    return [item.model_copy(update={"total_cost": Money.of(cost)}) for item, cost in sums.values()]


def whole_days(start: datetime, end: datetime) -> Period:
    """Of a summary only the dates count, in UTC."""
    first, last = (datetime.combine(moment.astimezone(UTC).date(), time(), UTC) for moment in (start, end))
    return Period(first, last)
