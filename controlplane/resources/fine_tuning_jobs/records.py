"""What a job leaves behind while it runs, for both collections: its metrics and its log."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query

from controlplane.context import Context
from controlplane.errors import invalid
from controlplane.resources.fine_tuning_jobs.logs import LogPage, read_last_lines, read_log
from controlplane.resources.fine_tuning_jobs.schemas import JobLogs, JobMetrics
from controlplane.resources.fine_tuning_jobs.states import ACTIVE
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.storage import ObjectNotFound

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
