"""What models and datasets have in common: registered files, signed URLs, and the worker's verdict."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, StringConstraints
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.context import Context
from controlplane.db import AsyncDatabase
from controlplane.errors import ApiError, Code, failed_precondition, invalid
from controlplane.resources.garbage import GarbageRow
from controlplane.rest.schema import ApiModel, Int64
from controlplane.storage import ObjectStore, StorageUnavailable

log = logging.getLogger(__name__)

Row = TypeVar("Row", bound=Any)

UPLOADING = "UPLOADING"
READY = "READY"
STATES = ("STATE_UNSPECIFIED", UPLOADING, READY)

# Values of a row's `reason` while it is UPLOADING.
CHECKING = "CHECKING"
INVALID = "INVALID"

MAX_FILES = 2000
MAX_FILE_BYTES = 2**41
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+=-]{0,199}")
URL_LIFETIME_SECONDS = 3600
INCOMING = ".incoming/"
"""Below a row's prefix: where signed URLs write to. No file name begins with a dot.

A signed URL works as long as it lasts. What is checked, served and downloaded is therefore a copy, at a place
that no URL writes to.
"""

FIRST_POLL_SECONDS = 0.05
LAST_POLL_SECONDS = 0.5


class GetUploadEndpointRequest(ApiModel):
    filename_to_size: Annotated[
        dict[
            Annotated[str, StringConstraints(max_length=400)],
            Annotated[Int64, Field(ge=0, le=MAX_FILE_BYTES)],
        ],
        Field(min_length=1, max_length=MAX_FILES),
    ]
    unsupported: ClassVar[dict[str, str]] = {
        "enable_resumable_upload": "a file is sent in one PUT to its signed URL",
    }

    enable_resumable_upload: bool = False
    read_mask: str = ""


class GetUploadEndpointResponse(ApiModel):
    filename_to_signed_urls: dict[str, str] = Field(default_factory=dict)
    filename_to_unsigned_uris: dict[str, str] = Field(default_factory=dict)


class GetDownloadEndpointResponse(ApiModel):
    filename_to_signed_urls: dict[str, str] = Field(default_factory=dict)


def check_file_name(name: str) -> str:
    """A plain file name: no folders, no leading dot, nothing that a shell or a path could take amiss."""
    if not FILE_NAME.fullmatch(name) or ".." in name:
        raise invalid(
            f"file name {name!r} is not allowed: use letters, digits and ._-@+=, at most 200, no folders",
            "filenameToSize",
        )
    return name


def register_files(row: Any, request: GetUploadEndpointRequest) -> None:
    """Make the given files the row's file set. Whatever was there before is replaced."""
    request.refuse_unsupported()
    refuse_if_ready(row)
    empty = [name for name, size in request.filename_to_size.items() if size == 0]
    if empty:
        raise invalid(f"file {empty[0]!r} is empty", "filenameToSize")
    row.files = {
        check_file_name(name): {"size": size, "sha256": "", "incoming": True}
        for name, size in request.filename_to_size.items()
    }
    reset_verdict(row)


def refuse_if_ready(row: Any) -> None:
    if row.state == READY:
        raise failed_precondition(f"{row.name} is READY and cannot be uploaded to again; create a new one")
    if row.reason == CHECKING:
        raise failed_precondition(f"{row.name} is being checked; upload again once the check has ended")


def reset_verdict(row: Any) -> None:
    row.reason, row.status_code, row.status_message = "", "OK", "waiting for its files"


def ask_for_check(row: Any) -> None:
    """Record that the row's files are to be checked."""
    if row.state == READY:
        return
    if not row.files:
        raise failed_precondition(f"{row.name} has no files; call getUploadEndpoint and upload them first")
    row.reason, row.status_code, row.status_message = CHECKING, "OK", "its files are being checked"
    row.next_reconcile_at, row.lease_claims = func.now(), 0


def upload_urls(store: ObjectStore, row: Any) -> dict[str, str]:
    return {
        name: store.signed_put_url(row.prefix + INCOMING + name, file["size"], URL_LIFETIME_SECONDS)
        for name, file in row.files.items()
    }


def download_urls(store: ObjectStore, row: Any) -> dict[str, str]:
    """Of a READY row; what was not checked is not handed out."""
    if row.state != READY:
        raise failed_precondition(f"{row.name} is {row.state}; its files can be downloaded once it is READY")
    return {
        name: store.signed_get_url(row.prefix + name, name, URL_LIFETIME_SECONDS)
        for name in sorted(row.files)
    }


async def wait_for_verdict(ctx: Context, table: type[Row], uid: Any) -> Row:
    """The row once the worker has checked its files, or as it is when the waiting time is over."""
    deadline = time.monotonic() + ctx.settings.verdict_wait_seconds
    pause = FIRST_POLL_SECONDS
    while True:
        row = await _read(ctx.db, table, uid)
        if row.reason != CHECKING or time.monotonic() >= deadline:
            return row
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LAST_POLL_SECONDS)


async def _read(db: AsyncDatabase, table: type[Row], uid: Any) -> Row:
    async with db.session() as session:
        row = await session.get(table, uid)
        if row is None:
            raise ApiError(Code.ABORTED, "it was deleted while its files were being checked")
        return row


def refuse_if_invalid(row: Any, details: list[Mapping[str, Any]]) -> None:
    """400 with the check's findings, when it found any."""
    if row.reason == INVALID:
        raise ApiError(Code[row.status_code], row.status_message, [dict(detail) for detail in details])


async def discard(store: ObjectStore, keys: list[str]) -> None:
    """Delete objects that no row names. What cannot be deleted now goes with its resource at the latest."""
    for key in keys:
        try:
            await asyncio.to_thread(store.delete, key)
        except StorageUnavailable as error:
            log.warning("%s stays for now: %s", key, error)


def add_garbage(session: AsyncSession, prefix: str) -> None:
    """Have a prefix of the object store emptied once this transaction is committed."""
    session.add(GarbageRow(prefix=prefix))
