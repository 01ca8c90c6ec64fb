"""What models and datasets have in common: registered files, signed URLs, and the worker's verdict."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field, StringConstraints
from pydantic.alias_generators import to_camel
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.context import Context
from controlplane.db import AsyncDatabase
from controlplane.errors import ApiError, Code, failed_precondition, invalid
from controlplane.part_uploads import MOST_PARTS
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
SHA256 = r"^[0-9a-fA-F]{64}$"
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+=-]{0,199}|[0-9]_Pooling/config\.json")
"""Flat, but for the one file that the engine looks for in a folder."""
URL_LIFETIME_SECONDS = 3600
RESUMED = ("upload", "part_size", "etags", "announced")
"""What a row keeps of a file that is on its way: the id of its upload in parts, how large they are, which of
them its owner means where the store has several under one number, and the checksum that its owner told."""
INCOMING = ".incoming/"
"""Below a row's prefix: where signed URLs write to. No file name begins with a dot.

A signed URL works as long as it lasts. What is checked, served and downloaded is therefore a copy, at a place
that no URL writes to.
"""

FileName = Annotated[str, StringConstraints(max_length=400)]

PartNumber = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,4}$")]
PartEtag = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z-]{1,100}$")]

FIRST_POLL_SECONDS = 0.05
LAST_POLL_SECONDS = 0.5


class GetUploadEndpointRequest(ApiModel):
    filename_to_size: Annotated[
        dict[FileName, Annotated[Int64, Field(ge=0, le=MAX_FILE_BYTES)]],
        Field(min_length=1, max_length=MAX_FILES),
    ]
    enable_resumable_upload: Annotated[
        bool,
        Field(
            description="Large files are to be sent in parts, by `filenameToParts` of the answer. What was "
            "sent stays when the call is repeated."
        ),
    ] = False
    filename_to_first_part: Annotated[
        dict[FileName, Annotated[int, Field(ge=1, le=MOST_PARTS)]],
        Field(
            max_length=MAX_FILES,
            description="With `enableResumableUpload`: the files whose parts the answer tells of, and from "
            "which number on; that part gets an address even if it has arrived, to be sent again. Empty: all "
            "files in the order of their names, from part 1.",
        ),
    ] = Field(default_factory=dict)
    filename_to_sha256: Annotated[
        dict[FileName, Annotated[str, StringConstraints(pattern=SHA256)]],
        Field(
            max_length=MAX_FILES,
            description="The SHA-256 of files, in hexadecimal: the check refuses a file that arrived as "
            "another one. With `enableResumableUpload` it may be told late, by repeating the call.",
        ),
    ] = Field(default_factory=dict)
    filename_to_part_etags: Annotated[
        dict[FileName, Annotated[dict[PartNumber, PartEtag], Field(max_length=MOST_PARTS)]],
        Field(
            max_length=MAX_FILES,
            description="With `enableResumableUpload`: the ETags of parts that were sent again with other "
            "bytes. Some stores keep what was there before too, and cannot tell which one counts.",
        ),
    ] = Field(default_factory=dict)
    read_mask: str = ""


class UploadParts(ApiModel):
    """How a large file is sent: each part in a PUT of its exact size; in any order, and again if need be."""

    upload_id: str = Field(default="", description="Another one than before: what was sent is gone.")
    part_size: Int64 = Field(default=0, description="Bytes of each part but the last, which has the rest.")
    part_count: int = Field(default=0, description="Parts are counted from 1.")
    part_number_to_etag: dict[str, str] = Field(
        default_factory=dict, description="The parts that have arrived; the ETag is what the store gave them."
    )
    part_number_to_signed_url: dict[str, str] = Field(
        default_factory=dict,
        description="Where missing parts go, the first ones first. An answer holds 100; repeat the call for "
        "more.",
    )


class GetUploadEndpointResponse(ApiModel):
    filename_to_signed_urls: dict[str, str] = Field(
        default_factory=dict, description="For each file an address for one PUT; without those sent in parts."
    )
    filename_to_unsigned_uris: dict[str, str] = Field(default_factory=dict)
    filename_to_parts: dict[str, UploadParts] = Field(
        default_factory=dict,
        description="With `enableResumableUpload`: the files above 8 MiB. Those for which the answer has no "
        "room are left out; a file has arrived when it has no address for a missing part.",
    )


class GetDownloadEndpointResponse(ApiModel):
    filename_to_signed_urls: dict[str, str] = Field(default_factory=dict)
    filename_to_size: dict[str, Int64] = Field(default_factory=dict, description="Bytes of each file.")
    filename_to_sha256: dict[str, str] = Field(
        default_factory=dict, description="The SHA-256 of each file, as the check read it."
    )


def check_file_name(name: str) -> str:
    """A plain file name: no folders, no leading dot, nothing that a shell or a path could take amiss."""
    if not FILE_NAME.fullmatch(name) or ".." in name:
        raise invalid(
            f"file name {name!r} is not allowed: use letters, digits and ._-@+=, at most 200, no folders",
            "filenameToSize",
        )
    return name


def register_files(row: Any, request: GetUploadEndpointRequest) -> dict[str, Any]:
    """Make the given files the row's file set. What is sent in parts goes on where it was.

    Returns the files whose uploads are over, as the row had them.
    """
    refuse_if_ready(row)
    refuse_unfit_files(request)
    before = row.files
    row.files = {name: registered(name, before.get(name, {}), request) for name in request.filename_to_size}
    reset_verdict(row)
    kept = {file.get("upload") for file in row.files.values()}
    return {name: file for name, file in before.items() if file.get("upload") not in kept}


def refuse_unfit_files(request: GetUploadEndpointRequest) -> None:
    for name, size in request.filename_to_size.items():
        check_file_name(name)
        if size == 0:
            raise invalid(f"file {name!r} is empty", "filenameToSize")
    for field in ("filename_to_sha256", "filename_to_first_part", "filename_to_part_etags"):
        unknown = getattr(request, field).keys() - request.filename_to_size.keys()
        if unknown:
            camel = to_camel(field)
            raise invalid(f"{camel} names {min(unknown)!r}, which filenameToSize does not", camel)


def registered(name: str, before: Mapping[str, Any], request: GetUploadEndpointRequest) -> dict[str, Any]:
    """A file that is to come."""
    size, sha256 = request.filename_to_size[name], request.filename_to_sha256.get(name)
    goes_on = request.enable_resumable_upload and before.get("incoming") and before["size"] == size
    kept = {key: before[key] for key in RESUMED if key in before} if goes_on else {}
    if "upload" in kept:
        kept["etags"] = {**kept.get("etags", {}), **request.filename_to_part_etags.get(name, {})}
    announced = {"announced": sha256.lower()} if sha256 else {}
    return {"size": size, "sha256": "", "incoming": True, **kept, **announced}


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


def upload_urls(store: ObjectStore, row: Any, names: Iterable[str]) -> dict[str, str]:
    return {
        name: store.signed_put_url(
            row.prefix + INCOMING + name, row.files[name]["size"], URL_LIFETIME_SECONDS
        )
        for name in names
    }


def downloads(store: ObjectStore, row: Any, folder: str = "") -> GetDownloadEndpointResponse:
    """Of a READY row; what was not checked is not handed out."""
    if row.state != READY:
        raise failed_precondition(f"{row.name} is {row.state}; its files can be downloaded once it is READY")
    files = {folder + name: (name, row.files[name]) for name in sorted(row.files)}
    return GetDownloadEndpointResponse(
        filename_to_signed_urls={
            shown: store.signed_get_url(row.prefix + name, name, URL_LIFETIME_SECONDS)
            for shown, (name, _) in files.items()
        },
        filename_to_size={shown: file["size"] for shown, (_, file) in files.items()},
        filename_to_sha256={
            shown: file["sha256"] for shown, (_, file) in files.items() if file.get("sha256")
        },
    )


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
