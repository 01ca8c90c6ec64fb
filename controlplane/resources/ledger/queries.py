"""Reading the ledger: sums by day and by what was asked for, of one account's own entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Interval, Select, and_, func, literal, select
from sqlalchemy.sql import ColumnElement

from controlplane.resources.ledger.entries import DEPLOYMENT, INFERENCE, TRAINING
from controlplane.resources.ledger.tables import LedgerRow

SERVERLESS = "SERVERLESS"
DEDICATED = "DEDICATED_DEPLOYMENT"
TRAINED = "TRAINING"
USAGE_TYPES = (SERVERLESS, DEDICATED, TRAINED)

ROW = LedgerRow
MODEL, KEY, USER = {"model_name": ROW.model}, {"api_key_id": ROW.key_id}, {"user_id": ROW.user_id}
ON_DEPLOYMENT = {"deployment_name": ROW.deployment}
BASE = {"base_model": ROW.model}
GPU = {"accelerator_type": func.coalesce(ROW.accelerator_type, "")}
JOB = {"job_name": ROW.job}


@dataclass(frozen=True)
class View:
    """One of the lists that usage is shown in."""

    usage_type: str
    is_part: ColumnElement[bool]
    dimensions: Mapping[str, Any]
    """What it can be grouped and filtered by."""
    grouped_by: tuple[str, ...]
    """Unless something else is asked for."""


OF_OTHERS = and_(ROW.product == INFERENCE, ROW.owner_id != ROW.account_id)
OF_ONESELF = and_(ROW.product == INFERENCE, ROW.owner_id == ROW.account_id)

VIEWS = {
    # The names of others' deployments are not the caller's business.
    "serverless_costs": View(SERVERLESS, OF_OTHERS, {**MODEL, **KEY, **USER}, ("model_name",)),
    "dedicated_costs": View(
        DEDICATED,
        ROW.product == DEPLOYMENT,
        {**ON_DEPLOYMENT, **GPU, **BASE},
        ("deployment_name", "accelerator_type", "base_model"),
    ),
    "dedicated_tokens": View(
        DEDICATED,
        OF_ONESELF,
        {**MODEL, **ON_DEPLOYMENT, **KEY, **USER},
        ("model_name", "deployment_name"),
    ),
    "training_costs": View(TRAINED, ROW.product == TRAINING, {**JOB, **BASE}, ("job_name", "base_model")),
}
DIMENSIONS = tuple(dict.fromkeys(name for view in VIEWS.values() for name in view.dimensions))

GPU_MS = func.sum(ROW.duration_ms * ROW.accelerator_count)
RESERVED_MS = func.sum(ROW.duration_ms * ROW.reserved_count)
SUMS: Mapping[str, Any] = {
    "requests": func.count(),
    "prompt": func.sum(ROW.prompt_tokens),
    "cached": func.sum(ROW.cached_prompt_tokens),
    "completion": func.sum(ROW.completion_tokens),
    "trained": func.coalesce(func.sum(ROW.trained_tokens), 0),
    "replica_ms": func.sum(ROW.duration_ms),
    "gpu_ms": func.coalesce(GPU_MS, 0),
    "reserved_ms": func.coalesce(RESERVED_MS, 0),
    "cost": func.sum(ROW.cost_nanos),
}


@dataclass(frozen=True)
class Period:
    """From `start` until `end`, in days of a time zone."""

    start: datetime
    end: datetime
    timezone: str = "UTC"

    @property
    def day(self) -> ColumnElement[Any]:
        return func.date_trunc("day", func.timezone(self.timezone, ROW.create_time))

    def covers(self) -> ColumnElement[bool]:
        return and_(ROW.create_time >= self.start, ROW.create_time < self.end)


def usage_query(
    account_id: str,
    view: View,
    period: Period,
    dimensions: Sequence[str],
    chosen: Mapping[str, Sequence[str]],
) -> Select[Any]:
    """A row for each day and group: (day_start, day_end, the dimensions, the sums)."""
    query = by_day(period, [view.dimensions[name].label(name) for name in dimensions])
    query = query.where(ROW.account_id == account_id, view.is_part, period.covers())
    for name, values in chosen.items():
        query = query.where(view.dimensions[name].in_(values))
    return query


def served_query(account_id: str, period: Period) -> Select[Any]:
    """What others used of the account's deployments, by day, deployment and model."""
    query = by_day(period, [ROW.deployment.label("deployment_name"), ROW.model.label("model_name")])
    return query.where(ROW.owner_id == account_id, OF_OTHERS, period.covers())


def by_day(period: Period, columns: Sequence[Any]) -> Select[Any]:
    day = period.day  # one expression in all places: its parameters are the same ones then
    sums = (total.label(key) for key, total in SUMS.items())
    return select(day.label("day"), *columns, *sums).group_by(day, *columns).order_by(day, *columns)


def bounds(query: Select[Any], period: Period) -> Select[Any]:
    """The query with its days as moments: `day_start` and `day_end`."""
    inner = query.subquery()
    start = func.timezone(period.timezone, inner.c.day)
    end = func.timezone(period.timezone, inner.c.day + literal("1 day").cast(Interval))
    return select(start.label("day_start"), end.label("day_end"), inner).order_by(*inner.c)


def deployment_hours(account_id: str, deployment: str, since: datetime) -> Select[Any]:
    """(hour, GPU-milliseconds or, without GPUs, replica-milliseconds) of one of the account's deployments."""
    hour = func.date_trunc("hour", ROW.create_time, "UTC")
    value = func.sum(ROW.duration_ms * func.greatest(ROW.accelerator_count, 1))
    return (
        select(hour.label("hour"), value.label("ms"))
        .where(
            ROW.deployment == deployment,
            ROW.product == DEPLOYMENT,
            ROW.account_id == account_id,
            ROW.create_time >= since,
        )
        .group_by(hour)
        .order_by(hour)
    )
