from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Query, Request, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import Context, ContextDep, may
from controlplane.errors import ApiError, Code
from controlplane.names import ResourceName, generate_id
from controlplane.queue import RECONCILE_DATASET
from controlplane.resources.datasets import service, sources
from controlplane.resources.datasets.listing import LISTING, NOT_SHOWN
from controlplane.resources.datasets.multipart import store_file_part
from controlplane.resources.datasets.schemas import (
    CreateDatasetRequest,
    Dataset,
    SplitDatasetRequest,
    SplitDatasetResponse,
    UploadedFile,
    report_detail,
)
from controlplane.resources.datasets.tables import DatasetRow
from controlplane.resources.resumable import upload_endpoint
from controlplane.resources.uploads import (
    FILE_NAME,
    GetDownloadEndpointResponse,
    GetUploadEndpointRequest,
    GetUploadEndpointResponse,
    ask_for_check,
    discard,
    downloads,
    refuse_if_invalid,
    register_files,
    wait_for_verdict,
)
from controlplane.rest.access import find, refuse_others_rows
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import WireResponse, reply, reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Empty

router = collection_router("datasets", "/v1/accounts/{account_id:rid}/datasets")


def name_of(account_id: str, dataset_id: str) -> ResourceName:
    return ResourceName(account_id, "datasets", dataset_id)


@router.post(
    "",
    response_model=Dataset,
    summary="Create a dataset: to be uploaded next, or a copy of another one",
)
async def create_dataset(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[CreateDatasetRequest, Body()],
) -> Response:
    async with ctx.work(caller) as work:
        row = await service.create_dataset(work.session, caller, body)
        if row.source:
            work.hint(RECONCILE_DATASET, row.uid)
    return reply(Dataset.of(row))


@router.get("", response_model=list_of(Dataset, "datasets"), summary="List datasets")
async def list_datasets(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(DatasetRow).where(DatasetRow.account_id == account_id).options(*NOT_SHOWN)
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
    return reply_page("datasets", [Dataset.of(row) for row in found.rows], found, page.read_mask)


@router.get("/{dataset_id:rid}", response_model=Dataset, summary="Get a dataset")
async def get_dataset(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    dataset_id: str,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, DatasetRow, name_of(account_id, dataset_id))
    return reply(Dataset.of(row), readMask)


@router.patch("/{dataset_id:rid}", response_model=Dataset, summary="Update a dataset's display name")
async def update_dataset(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    dataset_id: str,
    body: Annotated[Dataset, Body()],
    updateMask: str = "",
) -> Response:
    async with ctx.work(caller) as work:
        name = name_of(account_id, dataset_id)
        row = await service.update_dataset(work.session, name, body, updateMask)
    return reply(Dataset.of(row))


@router.delete("/{dataset_id:rid}", response_model=Empty, summary="Delete a dataset and its files")
async def delete_dataset(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.change")], account_id: str, dataset_id: str
) -> Response:
    async with ctx.work(caller) as work:
        await service.delete_dataset(work.session, name_of(account_id, dataset_id))
    return reply(Empty())


@router.post(
    "/{dataset_id:rid}:upload",
    response_model=UploadedFile,
    summary="Upload the dataset's file as multipart/form-data, at most 150 MB, and have it checked",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": {"type": "string", "format": "binary"}},
                        "required": ["file"],
                    }
                }
            },
        }
    },
)
async def upload(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    dataset_id: str,
    request: Request,
) -> Response:
    name = name_of(account_id, dataset_id)
    async with ctx.db.session() as session:
        row = await find(session, DatasetRow, name)
        refuse_others_rows(caller, row, name)
        service.refuse_uploads(row)
    # Each upload writes an object of its own: a second one cannot change what the first one's check reads.
    stored_as = f"dataset-{generate_id()}.jsonl"
    prefix, limit = row.prefix, ctx.settings.dataset_upload_limit
    part = await store_file_part(request, ctx.store, prefix + stored_as, limit)
    try:
        row, replaced = await register_upload(ctx, caller, name, prefix, stored_as, part.size)
    except ApiError:
        await discard(ctx.store, [prefix + stored_as])  # refused after all: nothing names what was written
        raise
    await discard(ctx.store, replaced)
    row = await verdict(ctx, row)
    filename = part.filename if FILE_NAME.fullmatch(part.filename) else stored_as
    answer = UploadedFile(
        id=row.name, filename=filename, bytes=part.size, created_at=int(row.create_time.timestamp())
    )
    return WireResponse(answer.model_dump())


@router.post(
    "/{dataset_id:rid}:getUploadEndpoint",
    response_model=GetUploadEndpointResponse,
    summary="Register the dataset's files and get a signed URL to PUT each to",
)
async def get_upload_endpoint(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    dataset_id: str,
    body: Annotated[GetUploadEndpointRequest, Body()],
) -> Response:
    """With `enableResumableUpload` files above 8 MiB are sent in parts, as those of a model are."""
    async with ctx.work(caller) as work:
        row = await find(work.session, DatasetRow, name_of(account_id, dataset_id), lock=True)
        service.refuse_uploads(row)
        dropped = register_files(row, body)
    return reply(await upload_endpoint(ctx, row, body, dropped), body.read_mask)


@router.post(
    "/{dataset_id:rid}:validateUpload",
    response_model=Empty,
    summary="Have the uploaded files checked; the dataset is READY once they are good",
)
async def validate_upload(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    dataset_id: str,
    body: Annotated[Empty, Body(default_factory=Empty)],
) -> Response:
    async with ctx.work(caller) as work:
        row = await find(work.session, DatasetRow, name_of(account_id, dataset_id), lock=True)
        if not row.source:  # what is made from another dataset is checked without being asked for
            ask_for_check(row)
            work.hint(RECONCILE_DATASET, row.uid)
    await verdict(ctx, row)
    return reply(Empty())


@router.get(
    "/{dataset_id:rid}:getDownloadEndpoint",
    response_model=GetDownloadEndpointResponse,
    summary="Get a signed URL for each of the dataset's files",
)
async def get_download_endpoint(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view")],
    account_id: str,
    dataset_id: str,
    downloadLineage: Annotated[
        bool,
        Query(description="The files of what it was made from too, each name behind its dataset's id."),
    ] = False,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, DatasetRow, name_of(account_id, dataset_id))
        rows = await sources.lineage(session, row) if downloadLineage else []
    if not rows:
        return reply(downloads(ctx.store, row), readMask)
    answer = GetDownloadEndpointResponse()
    for made in rows:
        found = downloads(ctx.store, made, folder=f"{made.id}/")
        answer.filename_to_signed_urls |= found.filename_to_signed_urls
        answer.filename_to_size |= found.filename_to_size
        answer.filename_to_sha256 |= found.filename_to_sha256
    return reply(answer, readMask)


@router.post(
    "/{dataset_id:rid}:splitDataset",
    response_model=SplitDatasetResponse,
    summary="Make datasets of so many rows each; they become READY one after the other",
)
async def split_dataset(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    dataset_id: str,
    body: Annotated[SplitDatasetRequest, Body()],
) -> Response:
    async with ctx.work(caller) as work:
        source = await sources.ready_source(work.session, name_of(account_id, dataset_id))
        parts = await sources.split(work.session, caller, source, body)
        work.hint(RECONCILE_DATASET, source.uid)
    answer = SplitDatasetResponse(
        chunk_dataset_names=[part.name for part in parts],
        chunks_created=len(parts),
        total_examples=source.example_count,
    )
    return reply(answer)


async def register_upload(
    ctx: Context, caller: Caller, name: ResourceName, prefix: str, file: str, size: int
) -> tuple[DatasetRow, list[str]]:
    """Make an object that was written to `prefix` the dataset's file, and have it checked.

    Returns the row, and the objects that it replaces.
    """
    async with ctx.work(caller) as work:
        row = await find(work.session, DatasetRow, name, lock=True)
        service.refuse_uploads(row)
        if row.prefix != prefix:
            raise ApiError(Code.ABORTED, f"{row.name} was deleted and created again during the upload")
        replaced = [prefix + earlier for earlier in row.files]
        row.files = {file: {"size": size, "sha256": ""}}
        ask_for_check(row)
        work.hint(RECONCILE_DATASET, row.uid)
    return row, replaced


async def verdict(ctx: Context, row: DatasetRow) -> DatasetRow:
    """The dataset after its check; 400 with the row-level report when it is bad."""
    checked = await wait_for_verdict(ctx, DatasetRow, row.uid)
    refuse_if_invalid(checked, [report_detail(checked)])
    return checked
