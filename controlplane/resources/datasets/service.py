from __future__ import annotations

from typing import Any

from pydantic.alias_generators import to_camel
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.errors import failed_precondition, invalid
from controlplane.names import ResourceName, check_id
from controlplane.resources.datasets import sources
from controlplane.resources.datasets.schemas import (
    OF_OLDER_CLIENTS,
    ORIGINS,
    CreateDatasetRequest,
    Dataset,
)
from controlplane.resources.fine_tuning_jobs.states import ACTIVE
from controlplane.resources.quotas.service import claim_dataset
from controlplane.resources.tables import DatasetRow, FineTuningJobRow
from controlplane.resources.uploads import READY, UPLOADING, add_garbage, refuse_if_ready, reset_verdict
from controlplane.rest.access import find, insert
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.masks import changes, refuse_fixed

UPDATABLE = ("display_name", "example_count", *OF_OLDER_CLIENTS)


async def create_dataset(session: AsyncSession, caller: Caller, request: CreateDatasetRequest) -> DatasetRow:
    refuse_two_origins(request)
    request.refuse_unsupported()
    given = request.dataset.given()
    if given.get("format") == "RL":
        raise invalid(
            "datasets of format RL are not supported; use CHAT, COMPLETION or PREFERENCE", "dataset.format"
        )
    row = DatasetRow(
        account_id=caller.account_id,
        id=check_id(request.dataset_id, "datasetId"),
        display_name=given.get("display_name", ""),
        format=given.get("format") or "FORMAT_UNSPECIFIED",
        example_count=given.get("example_count", 0),
        created_by=caller.email,
        state=UPLOADING,
    )
    if request.source_dataset_id:
        source = await sources.wanted_source(session, caller, request.source_dataset_id)
        sources.make_copy(row, source, given)
    else:
        refuse_without_source(given)
        reset_verdict(row)
    await claim_dataset(session, caller.account_id)
    await insert(session, row, row.name)
    return row


def refuse_two_origins(request: CreateDatasetRequest) -> None:
    dataset = request.dataset
    named = [name for name in ORIGINS if getattr(dataset, name) is not None]
    shown = [f"dataset.{to_camel(name)}" for name in named]
    if request.source_dataset_id and named != ["transformed"]:
        shown.append("sourceDatasetId")
    if len(shown) > 1:
        raise invalid(f"a dataset comes from one place: {' and '.join(shown)} exclude each other", shown[0])


def refuse_without_source(given: dict[str, Any]) -> None:
    if given.get("transformed") is not None:
        raise invalid(
            "dataset.transformed is set by the server; name the dataset to copy in sourceDatasetId",
            "dataset.transformed",
        )


async def update_dataset(session: AsyncSession, name: ResourceName, body: Dataset, mask: str) -> DatasetRow:
    row = await find(session, DatasetRow, name, lock=True)
    changed = changes(session, body, mask, Dataset.of(row))
    refuse_fixed(changed, UPDATABLE, "a dataset")
    if "example_count" in changed and row.state == READY:
        raise invalid("exampleCount of a READY dataset is counted and cannot be changed", "exampleCount")
    row.display_name = changed.get("display_name", row.display_name)
    row.example_count = changed.get("example_count", row.example_count)
    await session.flush()
    return row


def refuse_uploads(row: DatasetRow) -> None:
    """A dataset is uploaded to until it is READY, and never when it is made from another one."""
    refuse_if_ready(row)
    if row.source:
        raise failed_precondition(f"{row.name} is made from {row.source['name']}; nothing is uploaded to it")


async def delete_dataset(session: AsyncSession, name: ResourceName) -> None:
    row = await find(session, DatasetRow, name, lock=True)
    refuse_other_version(session, Dataset.of(row))
    reading = await session.scalar(
        select(FineTuningJobRow).where(
            or_(
                FineTuningJobRow.dataset_uid == row.uid,
                FineTuningJobRow.evaluation_dataset_uid == row.uid,
            ),
            FineTuningJobRow.state.in_(ACTIVE),
        )
    )
    if reading is not None:
        raise failed_precondition(f"cannot delete {row.name}: {reading.name} reads it")
    await sources.refuse_while_read(session, row)
    add_garbage(session, row.prefix)
    await session.delete(row)
