"""Weights on the node: downloaded once, checked, and shared by every engine and trainer here.

CACHE/models/<uid>/           whole and checked: a folder with this name is complete
CACHE/adapters/<uid>-<hash>/  the same; the hash is of the files, because engines cache by path
CACHE/staging/<uid>-<random>/ on its way, or left behind by a crash
CACHE/locks/<uid>             held while somebody stages
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from controlplane.storage import ObjectNotFound, StorageUnavailable

FILE_NAME = re.compile(r"[A-Za-z0-9_.+=@-]{1,200}|[0-9]_Pooling/config\.json")
UID = re.compile(r"[0-9a-f-]{1,36}")
PARALLEL_DOWNLOADS = 4
SPARE_BYTES = 64 * 1024 * 1024
"""Left free beside the download."""


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
    store: ReadableStore, prefix: str, files: Sequence[StagedFile], cache_dir: Path, uid: str | None = None
) -> Path:
    """The folder on this node that holds the model's files; downloads and checks them when it is not there.

    Without `uid` it is the last part of `prefix`. Waits while another process stages the same model.
    Raises StagingError.
    """
    return _stage(store, prefix, files, cache_dir, "models", _checked_uid(uid or prefix.rstrip("/")))


def stage_adapter(
    store: ReadableStore, prefix: str, files: Sequence[StagedFile], cache_dir: Path, uid: str | None = None
) -> Path:
    """As `stage_model`, for an addon."""
    listed = sorted((file.name, file.size, file.sha256) for file in files)
    content = hashlib.sha256(repr(listed).encode()).hexdigest()[:16]
    folder = f"{_checked_uid(uid or prefix.rstrip('/'))}-{content}"
    return _stage(store, prefix, files, cache_dir, "adapters", folder)


def remove_staged(cache_dir: Path, uid: str) -> None:
    """Forget a model or an addon that no process of this node uses any more."""
    uid = _checked_uid(uid)
    with _staging_lock(cache_dir, uid):
        for folder in (cache_dir / "models" / uid, *(cache_dir / "adapters").glob(f"{uid}-*")):
            shutil.rmtree(folder, ignore_errors=True)


def _stage(
    store: ReadableStore, prefix: str, files: Sequence[StagedFile], cache_dir: Path, kind: str, folder: str
) -> Path:
    _check_names(files)
    target = cache_dir.absolute() / kind / folder
    if _is_whole(target, files):
        return target
    try:
        with _staging_lock(cache_dir, folder):
            if not _is_whole(target, files):
                _download_whole(store, prefix, files, cache_dir.absolute() / "staging", target)
    except OSError as error:
        raise _disk_error(error, files, cache_dir) from error
    return target


def _download_whole(
    store: ReadableStore, prefix: str, files: Sequence[StagedFile], staging: Path, target: Path
) -> None:
    """Everything into a folder of its own, then one rename: `target` is whole or not there."""
    staging.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    for leftover in staging.glob(f"{target.name}-*"):  # We hold the lock, so their owners are dead.
        shutil.rmtree(leftover, ignore_errors=True)
    _check_space(files, staging)
    draft = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=staging))
    try:
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            for done in [pool.submit(_download, store, prefix, file, draft) for file in files]:
                done.result()
        _sync_folder(draft)
        draft.rename(target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _download(store: ReadableStore, prefix: str, file: StagedFile, folder: Path) -> None:
    """One file, hashed while it is written; refuses as soon as it is longer than it should be."""
    digest, size = hashlib.sha256(), 0
    try:
        place = folder / file.name
        place.parent.mkdir(exist_ok=True)
        with open(place, "xb") as out:
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


def _is_whole(target: Path, files: Sequence[StagedFile]) -> bool:
    """The contents were checked before the rename; this only notices files changed or lost since."""
    try:
        return all((target / file.name).stat().st_size == file.size for file in files)
    except OSError:
        return False


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


def _check_space(files: Sequence[StagedFile], folder: Path) -> None:
    needed, free = sum(file.size for file in files), shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise _disk_full(needed, free)


def _disk_error(error: OSError, files: Sequence[StagedFile], cache_dir: Path) -> StagingError:
    if error.errno in NO_ROOM:
        return _disk_full(sum(file.size for file in files), shutil.disk_usage(cache_dir).free)
    return StagingError("INTERNAL", "CACHE_UNUSABLE", f"the node's cache cannot be written: {error.strerror}")


def _disk_full(needed: int, free: int) -> StagingError:
    text = f"the disk of the node is full: the files need {needed} bytes and {free} bytes are free"
    return StagingError("RESOURCE_EXHAUSTED", "DISK_FULL", text, retryable=True)


@contextmanager
def _staging_lock(cache_dir: Path, name: str) -> Iterator[None]:
    locks = cache_dir / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with open(locks / name, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
