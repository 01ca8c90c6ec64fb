"""Weights on the node: downloaded once, checked, and shared by every engine and trainer here.

CACHE/models/<hash>/             whole and checked: a folder with this name is complete. The hash is of its
                                 files, so that equal models of several accounts are here once; it is the
                                 uid where a checksum is not known
CACHE/adapters/<uid>-<hash>/     the same; the hash is there because engines cache by path
CACHE/staging/<folder>-<random>/ on its way, or left behind by a crash
CACHE/locks/<folder>             held while somebody stages it, or removes it

What is in use, and what makes way for others, is in `cache_uses` and `cache_room`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from controlplane.content_hash import content_sha256
from controlplane.storage import ObjectNotFound, StorageUnavailable
from workers.runtimes.cache_room import NoRoom, disk_full, taking_room
from workers.runtimes.cache_uses import Keeper, locked, note_use

FILE_NAME = re.compile(r"[A-Za-z0-9_.+=@-]{1,200}|[0-9]_Pooling/config\.json")
UID = re.compile(r"[0-9a-f-]{1,36}")
PARALLEL_DOWNLOADS = 4
SEALED_NS = 946_684_800 * 10**9
"""The time of files whose contents were checked: whatever writes to one changes it."""


class StagedFile(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def sha256(self) -> str: ...


class ReadableStore(Protocol):
    def open_stream(self, key: str) -> Iterator[bytes]: ...


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk is full, or what the user or one file may take of it is used up."""


class StagingError(Exception):
    """The files cannot be brought to the node. `code` is a google.rpc name."""

    def __init__(self, code: str, reason: str, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retryable = retryable


def stage_model(
    store: ReadableStore,
    prefix: str,
    files: Sequence[StagedFile],
    cache_dir: Path,
    uid: str | None = None,
    keeper: Keeper | None = None,
) -> Path:
    """The folder on this node that holds the model's files; downloads and checks them when it is not there.

    Without `uid` it is the last part of `prefix`. For a keeper others make way, and it stays as long as the
    keeper's holder lives; without one nothing else is touched. Waits while another process stages the same
    model. Raises StagingError.
    """
    target = model_folder(cache_dir, uid or prefix.rstrip("/"), files)
    return _stage(store, prefix, files, cache_dir, target, keeper)


def stage_adapter(
    store: ReadableStore,
    prefix: str,
    files: Sequence[StagedFile],
    cache_dir: Path,
    uid: str | None = None,
    keeper: Keeper | None = None,
) -> Path:
    """As `stage_model`, for an addon."""
    listed = sorted((file.name, file.size, file.sha256) for file in files)
    content = hashlib.sha256(repr(listed).encode()).hexdigest()[:16]
    folder = f"{_checked_uid(uid or prefix.rstrip('/'))}-{content}"
    return _stage(store, prefix, files, cache_dir, cache_dir.absolute() / "adapters" / folder, keeper)


def model_folder(cache_dir: Path, uid: str, files: Sequence[StagedFile]) -> Path:
    """Where a model's files lie once they are staged.

    Nobody gets at others' files by naming their checksums: those in the database are of what Hearth itself
    has read. Raises StagingError.
    """
    content = content_sha256({file.name: file.sha256 for file in files})
    return cache_dir.absolute() / "models" / (content or _checked_uid(uid))


def _stage(
    store: ReadableStore,
    prefix: str,
    files: Sequence[StagedFile],
    cache_dir: Path,
    target: Path,
    keeper: Keeper | None,
) -> Path:
    _check_names(files)
    try:
        with locked(cache_dir, target.name):
            if keeper:
                note_use(cache_dir, target.name, keeper.holder)
            if not is_whole(target, files):
                _bring(store, prefix, files, cache_dir, target, keeper)
            os.utime(target)
    except NoRoom as error:
        raise StagingError("RESOURCE_EXHAUSTED", "DISK_FULL", error.message, not error.lasting) from None
    except OSError as error:
        raise _disk_error(error, files, cache_dir) from error
    return target


def _bring(
    store: ReadableStore,
    prefix: str,
    files: Sequence[StagedFile],
    cache_dir: Path,
    target: Path,
    keeper: Keeper | None,
) -> None:
    """Everything into a folder of its own, then one rename: `target` is whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(cache_dir.absolute() / "staging", target)
    try:
        missing = _clear_out(draft, files)
        needed, limit = sum(file.size for file in missing), keeper.limit if keeper else None
        with taking_room(cache_dir, needed, limit, evicting=keeper is not None):
            for file in missing:
                _reserve(draft / file.name, file.size)
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            for done in [pool.submit(_download, store, prefix, file, draft) for file in missing]:
                done.result()
        for file in files:
            os.utime(draft / file.name, ns=(SEALED_NS, SEALED_NS))
        _sync_folder(draft)
        draft.rename(target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draft(staging: Path, target: Path) -> Path:
    """A folder to work in. Of what is damaged, or was left behind half done, it has what there is."""
    staging.mkdir(parents=True, exist_ok=True)
    draft = staging / f"{target.name}-{uuid.uuid4().hex}"
    for leftover in (target, *staging.glob(f"{target.name}-*")):  # We hold the lock: their owners are dead.
        if draft.exists():
            shutil.rmtree(leftover, ignore_errors=True)
        elif leftover.exists():
            leftover.rename(draft)
    draft.mkdir(exist_ok=True)
    return draft


def _clear_out(draft: Path, files: Sequence[StagedFile]) -> list[StagedFile]:
    """Leaves what has the right checksum; returns what is missing then."""
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        sound = list(pool.map(lambda file: _is_sound(draft / file.name, file), files))
    kept = {draft / file.name for file, is_sound in zip(files, sound, strict=True) if is_sound}
    for place in draft.rglob("*"):
        if place not in kept and not place.is_dir():
            place.unlink()
    return [file for file in files if draft / file.name not in kept]


def _is_sound(place: Path, file: StagedFile) -> bool:
    if not file.sha256 or not place.is_file() or place.stat().st_size != file.size:
        return False
    with open(place, "rb") as read:
        return hashlib.file_digest(read, "sha256").hexdigest() == file.sha256


def _reserve(place: Path, size: int) -> None:
    """Whoever looks for room sees how much of it is spoken for."""
    place.parent.mkdir(exist_ok=True)
    with open(place, "xb") as out:
        out.truncate(size)


def _download(store: ReadableStore, prefix: str, file: StagedFile, folder: Path) -> None:
    """One file, hashed while it is written; refuses as soon as it is longer than it should be."""
    digest, size = hashlib.sha256(), 0
    try:
        with open(folder / file.name, "r+b") as out:
            for chunk in store.open_stream(f"{prefix.rstrip('/')}/{file.name}"):
                size += len(chunk)
                if size > file.size:
                    break
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    except ObjectNotFound:
        raise StagingError(
            "NOT_FOUND", "FILE_MISSING", f"{file.name} is missing from the object store"
        ) from None
    except StorageUnavailable as error:
        raise StagingError("UNAVAILABLE", "STORAGE_UNAVAILABLE", str(error), retryable=True) from error
    if size != file.size:
        problem = (
            f"{file.name} is {'longer than' if size > file.size else f'{size} instead of'} {file.size} bytes"
        )
        raise StagingError("DATA_LOSS", "SIZE_MISMATCH", problem)
    if file.sha256 and digest.hexdigest() != file.sha256:
        problem = f"{file.name} does not have the checksum (SHA-256) that it was registered with"
        raise StagingError("DATA_LOSS", "CHECKSUM_MISMATCH", problem)


def is_whole(folder: Path, files: Sequence[StagedFile]) -> bool:
    """The contents were checked before their times were set: this notices files that were changed since."""
    try:
        found = [(folder / file.name).stat() for file in files]
    except OSError:
        return False
    sealed = [(file.size, SEALED_NS) for file in files]
    return [(each.st_size, each.st_mtime_ns) for each in found] == sealed


def _check_names(files: Sequence[StagedFile]) -> None:
    seen: set[str] = set()
    for file in files:
        if not FILE_NAME.fullmatch(file.name) or file.name in {".", ".."}:
            raise StagingError("INVALID_ARGUMENT", "BAD_FILE_NAME", f"{file.name!r} is no plain file name")
        if file.name in seen:
            raise StagingError("INVALID_ARGUMENT", "BAD_FILE_NAME", f"{file.name} is listed twice")
        seen.add(file.name)
    if not files:
        raise StagingError("FAILED_PRECONDITION", "NO_FILES", "the model has no files")


def _checked_uid(text: str) -> str:
    uid = text.rsplit("/", 1)[-1]
    if not UID.fullmatch(uid):
        raise StagingError("INVALID_ARGUMENT", "BAD_UID", f"{uid!r} is no uid")
    return uid


def _disk_error(error: OSError, files: Sequence[StagedFile], cache_dir: Path) -> StagingError:
    if error.errno in NO_ROOM:
        needed, free = sum(file.size for file in files), shutil.disk_usage(cache_dir).free
        return StagingError("RESOURCE_EXHAUSTED", "DISK_FULL", disk_full(needed, free), retryable=True)
    return StagingError("INTERNAL", "CACHE_UNUSABLE", f"the node's cache cannot be written: {error.strerror}")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
