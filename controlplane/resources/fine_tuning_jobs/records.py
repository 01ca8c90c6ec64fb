"""What a job leaves behind while it runs, for both collections: its metrics and its log."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query
from pydantic import Field

from controlplane.context import Context
from controlplane.errors import invalid
from controlplane.resources.fine_tuning_jobs.logs import LogPage, read_last_lines, read_log
from controlplane.resources.fine_tuning_jobs.schemas import JobLogs, JobMetrics
from controlplane.resources.fine_tuning_jobs.states import ACTIVE
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.rest.schema import ApiModel
from controlplane.storage import ObjectNotFound, StorageUnavailable

MOST_LINES = 10_000


@dataclass(frozen=True)
class LogPlace:
    offset: int
    tail_lines: int | None


def log_place(
    offset: Annotated[
        int, Query(ge=0, lt=2**63, description="Where to begin: 0, or an earlier page's nextOffset.")
    ] = 0,
    tail_lines: Annotated[
        int | None,
        Query(
            alias="tailLines",
            ge=0,
            le=MOST_LINES,
            description="Begin with the last so many lines instead, as far as one page holds them.",
        ),
    ] = None,
) -> LogPlace:
    if offset and tail_lines is not None:
        raise invalid("offset and tailLines exclude each other")
    return LogPlace(offset, tail_lines)


async def job_metrics(ctx: Context, row: FineTuningJobRow) -> JobMetrics:
    try:
        logged = await asyncio.to_thread(ctx.store.get_bytes, row.prefix + "metrics.jsonl")
    except ObjectNotFound:
        return JobMetrics()
    return JobMetrics(metrics=[json.loads(line) for line in logged.splitlines() if line.strip()])


class PlotEndpoint(ApiModel):
    svg_signed_url: Annotated[str, Field(description="For an hour; empty before there is a picture.")] = ""
    png_signed_url: str = ""


async def plot_endpoint(ctx: Context, row: FineTuningJobRow) -> PlotEndpoint:
    """Drawn by the trainer: now and then while it works, and at its end."""
    keys = {f"{kind}_signed_url": f"plot.{kind}" for kind in ("svg", "png")}
    return PlotEndpoint(**{field: await signed_if_there(ctx, row, name) for field, name in keys.items()})


async def signed_if_there(ctx: Context, row: FineTuningJobRow, name: str) -> str:
    """Where a file of the job can be read; empty before there is one, and while nobody could read it."""
    try:
        found = await asyncio.to_thread(ctx.store.head, row.prefix + name) if row.attempt else None
    except StorageUnavailable:
        return ""
    return ctx.store.signed_get_url(row.prefix + name, f"{row.id}-{name}") if found else ""


async def job_logs(ctx: Context, row: FineTuningJobRow, place: LogPlace) -> JobLogs:
    # The row was read before the log: a job that had ended then has printed its last.
    if not row.attempt:
        page = LogPage("", place.offset, place.offset, True)
    elif place.tail_lines is not None:
        page = await asyncio.to_thread(read_last_lines, ctx.store, row.prefix, place.tail_lines)
    else:
        page = await asyncio.to_thread(read_log, ctx.store, row.prefix, place.offset)
    return JobLogs(
        text=page.text,
        offset=page.offset,
        next_offset=page.next_offset,
        complete=page.at_end and row.state not in ACTIVE,
    )
