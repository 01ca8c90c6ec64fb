from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.errors import failed_precondition, invalid
from controlplane.names import ResourceName, check_id
from controlplane.resources.datasets.schemas import CreateDatasetRequest, Dataset
from controlplane.resources.tables import DatasetRow, FineTuningJobRow
from controlplane.resources.uploads import UPLOADING, add_garbage, reset_verdict
from controlplane.rest.access import find, insert
from controlplane.rest.masks import changes, refuse_fixed

FORMATS = ("FORMAT_UNSPECIFIED", "CHAT", "COMPLETION")


async def create_dataset(session: AsyncSession, caller: Caller, request: CreateDatasetRequest) -> DatasetRow:
    request.refuse_unsupported()
    given = request.dataset.given()
    if given.get("format", "") not in ("", *FORMATS):
        raise invalid(f"format {given['format']!r} is none of {', '.join(FORMATS)}", "dataset.format")
    row = DatasetRow(
        account_id=caller.account_id,
        id=check_id(request.dataset_id, "datasetId"),
        display_name=given.get("display_name", ""),
        format=given.get("format") or "FORMAT_UNSPECIFIED",
        created_by=caller.email,
        state=UPLOADING,
    )
    reset_verdict(row)
    await insert(session, row, row.name)
    return row


async def update_dataset(session: AsyncSession, name: ResourceName, body: Dataset, mask: str) -> DatasetRow:
    row = await find(session, DatasetRow, name, lock=True)
    changed = changes(session, body, mask, Dataset.of(row))
    refuse_fixed(changed, {"display_name", "user_uploaded", "example_count"}, "a dataset")
    row.display_name = changed.get("display_name", row.display_name)
    await session.flush()
    return row


async def delete_dataset(session: AsyncSession, name: ResourceName) -> None:
    row = await find(session, DatasetRow, name, lock=True)
    reading = await session.scalar(
        select(FineTuningJobRow).where(
            or_(
                FineTuningJobRow.dataset_uid == row.uid,
                FineTuningJobRow.evaluation_dataset_uid == row.uid,
            ),
            FineTuningJobRow.state.in_(("CREATING", "PENDING", "RUNNING")),
        )
    )
    if reading is not None:
        raise failed_precondition(f"cannot delete {row.name}: {reading.name} reads it")
    add_garbage(session, row.prefix)
    await session.delete(row)
