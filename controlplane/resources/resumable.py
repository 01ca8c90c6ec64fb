"""Uploads in parts, for clients that ask with `enableResumableUpload`.

A call tells what is stored already, and where the rest goes. It changes nothing of what has arrived,
so any later call, of any process, goes on from there. The parts are put together when the files are checked.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sqlalchemy import select

from controlplane.context import Context
from controlplane.errors import failed_precondition
from controlplane.part_uploads import USUAL_PART_BYTES, PartPlan, StoredPart
from controlplane.resources.uploads import (
    INCOMING,
    URL_LIFETIME_SECONDS,
    GetUploadEndpointRequest,
    GetUploadEndpointResponse,
    UploadParts,
    upload_urls,
)
from controlplane.storage import ObjectStore, StorageUnavailable

log = logging.getLogger(__name__)

URLS_AN_ANSWER = 100


async def upload_endpoint(
    ctx: Context, row: Any, request: GetUploadEndpointRequest, dropped: dict[str, Any]
) -> GetUploadEndpointResponse:
    """Where the row's registered files go. `dropped` are the files that it had before and has no more."""
    await abort_dropped(ctx.store, row, dropped)
    if not request.enable_resumable_upload:
        return GetUploadEndpointResponse(filename_to_signed_urls=upload_urls(ctx.store, row, row.files))
    small = [name for name, file in row.files.items() if file["size"] <= USUAL_PART_BYTES]
    return GetUploadEndpointResponse(
        filename_to_signed_urls=upload_urls(ctx.store, row, small),
        filename_to_parts=await parts_of_files(ctx, row, request),
    )


async def parts_of_files(ctx: Context, row: Any, request: GetUploadEndpointRequest) -> dict[str, UploadParts]:
    """The parts of the files that are asked for, until as many URLs are signed as an answer holds."""
    asked = request.filename_to_first_part
    large = [name for name in sorted(row.files) if row.files[name]["size"] > USUAL_PART_BYTES]
    found: dict[str, UploadParts] = {}
    left = URLS_AN_ANSWER
    for name in large:
        if left and (not asked or name in asked):
            found[name] = await parts_of(ctx, row, name, asked.get(name), left)
            left -= len(found[name].part_number_to_signed_url)
    return found


async def parts_of(ctx: Context, row: Any, name: str, asked: int | None, most: int) -> UploadParts:
    """A file's parts from the one that is asked for on: that one may be sent again, even if it arrived."""
    first = asked or 1
    file, stored = await progress(ctx, row, name, first)
    plan = PartPlan(file["size"], file["part_size"])
    missing = list(plan.missing(stored, first))
    wanted = sorted({*missing, asked} if asked and asked <= plan.count else missing)
    arrived = stored.keys() - set(missing)
    urls = {
        str(number): ctx.store.parts.signed_url(
            key_of(row, name), file["upload"], number, plan.bytes_of(number), URL_LIFETIME_SECONDS
        )
        for number in wanted[:most]
    }
    return UploadParts(
        upload_id=file["upload"],
        part_size=plan.part_size,
        part_count=plan.count,
        part_number_to_etag={str(number): stored[number].etag for number in sorted(arrived)},
        part_number_to_signed_url=urls,
    )


async def progress(
    ctx: Context, row: Any, name: str, first: int
) -> tuple[dict[str, Any], dict[int, StoredPart]]:
    """A file as the row has it, and its parts that arrived; an upload is begun where there is none."""
    file = row.files[name]
    if "upload" in file:
        stored = await asyncio.to_thread(
            ctx.store.parts.stored, key_of(row, name), file["upload"], first, file.get("etags")
        )
        if stored is not None:
            return file, stored
    return await begin(ctx, row, name), {}


async def begin(ctx: Context, row: Any, name: str) -> dict[str, Any]:
    """Begin the upload of a file. Of two callers at once one wins, and both go on with that upload."""
    key = key_of(row, name)
    # What an earlier upload completed is not this one's file, even if this one never is completed.
    await asyncio.to_thread(ctx.store.delete, key)
    mine = await asyncio.to_thread(ctx.store.parts.start, key)
    noted = await note_upload(ctx, row, name, mine)
    if noted["upload"] != mine:
        await abort(ctx.store, key, mine)
    return noted


async def note_upload(ctx: Context, row: Any, name: str, upload_id: str) -> dict[str, Any]:
    """Write an upload on the row, unless another call was faster; returns the file as it stands then."""
    table, before = type(row), row.files[name]
    async with ctx.db.session() as session:
        current = await session.scalar(select(table).where(table.uid == row.uid).with_for_update())
        file: dict[str, Any] = current.files.get(name, {}) if current is not None else {}
        if current is None or not file.get("incoming") or file["size"] != before["size"]:
            raise failed_precondition(f"other files were registered for {row.name} meanwhile; start again")
        if file.get("upload") == before.get("upload"):
            part_size = PartPlan.of(file["size"], USUAL_PART_BYTES).part_size
            file = {**file, "upload": upload_id, "part_size": part_size, "etags": {}}
            current.files = {**current.files, name: file}
    return file


async def abort_dropped(store: ObjectStore, row: Any, dropped: dict[str, Any]) -> None:
    for name, file in dropped.items():
        if "upload" in file:
            await abort(store, key_of(row, name), file["upload"])


async def abort(store: ObjectStore, key: str, upload_id: str) -> None:
    """What cannot be aborted now is swept up later."""
    try:
        await asyncio.to_thread(store.parts.abort, key, upload_id)
    except StorageUnavailable as error:
        log.warning("an upload of %s stays for now: %s", key, error)


def key_of(row: Any, name: str) -> str:
    return str(row.prefix) + INCOMING + name
