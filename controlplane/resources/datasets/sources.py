"""Datasets that are made from others: copies, and the parts of a split. Workers make them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.errors import already_exists, failed_precondition, invalid, not_found
from controlplane.names import ResourceName, parse_name
from controlplane.resources.datasets.schemas import SPLITTED, TRANSFORMED, SplitDatasetRequest
from controlplane.resources.datasets.tables import DatasetRow
from controlplane.resources.quotas.service import claim_dataset
from controlplane.resources.uploads import CHECKING, READY, UPLOADING, ask_for_check
from controlplane.rest.access import insert

BEING_CUT = "BEING_CUT"
"""A part's `reason` until its rows are written; then it is checked as every upload is."""
MAX_PARTS = 1000
MAX_LINEAGE = 100
LONGEST_ID = 63


async def wanted_source(session: AsyncSession, caller: Caller, given: str) -> DatasetRow:
    """The dataset of the caller's account that is to be copied."""
    name = parse_name(given, "datasets", caller.account_id, "sourceDatasetId")
    if name.account_id != caller.account_id:
        raise not_found(str(name))
    return await ready_source(session, name)


async def ready_source(session: AsyncSession, name: ResourceName) -> DatasetRow:
    """A READY dataset, which stays there until the transaction ends. Nothing of it is changed."""
    query = select(DatasetRow).where(DatasetRow.account_id == name.account_id, DatasetRow.id == name.id)
    row = await session.scalar(query.with_for_update(read=True, key_share=True))
    if row is None:
        raise not_found(str(name))
    if row.state != READY:
        raise failed_precondition(f"{row.name} is {row.state}, not READY")
    return row


def make_copy(row: DatasetRow, source: DatasetRow, given: dict[str, Any]) -> None:
    """Have a new row made from all of `source`."""
    if row.format not in ("FORMAT_UNSPECIFIED", source.format):
        text = f"format {row.format} is not that of {source.name}, which is {source.format}"
        raise invalid(text, "dataset.format")
    named = given.get("transformed")
    if named is not None and named.source_dataset_id not in ("", source.id, source.name):
        text = "dataset.transformed.sourceDatasetId is not the dataset that sourceDatasetId names"
        raise invalid(text, "dataset.transformed.sourceDatasetId")
    row.source_uid, row.format = source.uid, source.format
    row.source = {"kind": TRANSFORMED, "name": source.name, "format": source.format}
    row.example_count = source.example_count
    row.files = dict(source.files)
    ask_for_check(row)
    row.status_message = f"being copied from {source.name}"


async def split(
    session: AsyncSession, caller: Caller, source: DatasetRow, request: SplitDatasetRequest
) -> list[DatasetRow]:
    """New datasets for the parts of `source`, in order. Their rows are written by the source's worker."""
    if request.parent not in ("", f"accounts/{source.account_id}", source.name):
        raise invalid(f"parent must be accounts/{source.account_id}, or be left out", "parent")
    firsts = range(0, source.example_count, request.chunk_size)
    if len(firsts) > MAX_PARTS:
        least = -(-source.example_count // MAX_PARTS)
        raise invalid(
            f"chunkSize {request.chunk_size} makes {len(firsts)} parts of {source.name}; at most {MAX_PARTS} "
            f"are made at once: use {least} or more",
            "chunkSize",
        )
    parts = [
        part_of(source, caller, number, len(firsts), first, request.chunk_size)
        for number, first in enumerate(firsts, start=1)
    ]
    await refuse_taken(session, parts)
    await claim_dataset(session, source.account_id, len(parts))
    for part in parts:
        await insert(session, part, part.name)
    await wake(session, source)
    return parts


def part_of(
    source: DatasetRow, caller: Caller, number: int, parts: int, first: int, chunk_size: int
) -> DatasetRow:
    ending = f"-chunk-{number}-of-{parts}"
    count = min(chunk_size, source.example_count - first)
    place = {"first": first, "count": count}
    return DatasetRow(
        account_id=source.account_id,
        id=source.id[: LONGEST_ID - len(ending)].rstrip("-") + ending,
        format=source.format,
        example_count=count,
        created_by=caller.email,
        source_uid=source.uid,
        source={"kind": SPLITTED, "name": source.name, "format": source.format, **place},
        state=UPLOADING,
        reason=BEING_CUT,
        status_code="OK",
        status_message=f"its rows are being taken from {source.name}",
    )


async def refuse_taken(session: AsyncSession, parts: list[DatasetRow]) -> None:
    """409 for the first part whose name exists: a second split of the same size makes nothing."""
    ids = [part.id for part in parts]
    taken = select(DatasetRow.id).where(DatasetRow.account_id == parts[0].account_id, DatasetRow.id.in_(ids))
    found = set(await session.scalars(taken))
    for part in parts:
        if part.id in found:
            raise already_exists(part.name)


async def wake(session: AsyncSession, row: DatasetRow) -> None:
    """Have a worker look at a row that itself does not change: its update time stays."""
    due = update(DatasetRow).where(DatasetRow.uid == row.uid)
    values = {"next_reconcile_at": func.now(), "update_time": DatasetRow.update_time}
    await session.execute(due.values(values), execution_options={"synchronize_session": False})


async def refuse_while_read(session: AsyncSession, row: DatasetRow) -> None:
    """400 while other datasets are being made from this one."""
    making = select(DatasetRow).where(
        DatasetRow.source_uid == row.uid, DatasetRow.reason.in_((CHECKING, BEING_CUT))
    )
    reader = await session.scalar(making.limit(1))
    if reader is not None:
        raise failed_precondition(f"cannot delete {row.name}: {reader.name} is being made from it")


async def lineage(session: AsyncSession, row: DatasetRow) -> list[DatasetRow]:
    """The dataset, what it was made from, what that was made from: as far back as they are still there."""
    found = [row]
    while found[-1].source_uid is not None and len(found) < MAX_LINEAGE:
        source = await session.get(DatasetRow, found[-1].source_uid)
        if source is None:
            break
        found.append(source)
    return found
