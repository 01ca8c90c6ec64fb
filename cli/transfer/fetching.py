"""Fetching files: a few at a time, each under another name until it is whole and checked.

What has arrived stays when a connection or the program ends, and the next attempt goes on from there.
"""

import contextlib
import errno
import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cli.errors import CliError, Stopped
from cli.show.readable import byte_size
from cli.transfer.crew import Crew
from cli.transfer.offer import Offer
from cli.transfer.parts import CHUNK_BYTES
from cli.transfer.retries import Patience, with_retries
from cli.transfer.sending import Count, counted_once
from cli.transfer.storage import storage_client

if TYPE_CHECKING:
    import httpx


_POOLING_CONFIG = re.compile(r"[0-9]_Pooling/config\.json")
"""The one file of an embedding model that has a folder of its own."""


def download(offer: Offer, folder: Path, count: Count) -> list[Path]:
    """Gets every file into a folder; a file appears under its name only when it is whole."""
    targets = {name: folder / _safe_name(name) for name in offer.names()}
    with _told(folder):
        for place in (folder, *(target.parent for target in targets.values())):
            place.mkdir(parents=True, exist_ok=True)
        _refuse_too_little_room(offer, folder)
    stop = threading.Event()
    patience = Patience(stop)
    with storage_client(offer.urls()) as http:
        fetcher = Fetcher(http, offer, patience, stop, count)
        with Crew[str](lambda name: fetcher.fetch(name, targets[name]), stop) as crew:
            for name in targets:
                crew.give(name)
            crew.finish()
    return list(targets.values())


class Fetcher:
    def __init__(
        self,
        http: "httpx.Client",
        offer: Offer,
        patience: Patience,
        stop: threading.Event,
        count: Count,
    ) -> None:
        self._http = http
        self._offer = offer
        self._patience = patience
        self._stop = stop
        self._count = counted_once(count)

    def fetch(self, name: str, target: Path) -> None:
        sha256 = self._offer.sha256(name)
        if sha256 and _is_there(target, self._offer.size(name), sha256):
            self._count(target.stat().st_size)
            return
        with _told(target.parent), _arriving(_part_path(target, sha256), keep=bool(sha256)) as arriving:
            if arriving.size > (self._offer.size(name) or arriving.size):
                arriving.start_over(lambda _: None)
            self._count(arriving.size)
            if not self._whole(name, arriving) and not (arriving.was_found and self._anew(name, arriving)):
                arriving.start_over(self._count)
                raise CliError(f"{name} arrived as another file than the server has; nothing was kept of it")
            arriving.path.replace(target)

    def _anew(self, name: str, arriving: "Arriving") -> bool:
        """Once more from the start: what an earlier command left was not the beginning of this file."""
        arriving.start_over(self._count)
        return self._whole(name, arriving)

    def _whole(self, name: str, arriving: "Arriving") -> bool:
        """Fetches the rest; whether the file is then what the server says."""
        size, sha256 = self._offer.size(name), self._offer.sha256(name)
        if size is None or arriving.size != size:
            address = self._offer.address(name)
            with_retries(
                f"download of {name}", address, lambda url: self._get(url, name, arriving), self._patience
            )
        return size in (None, arriving.size) and sha256 in ("", arriving.digest.hexdigest())

    def _get(self, url: str, name: str, arriving: "Arriving") -> "httpx.Response":
        import httpx

        with self._http.stream("GET", url, headers=arriving.headers()) as response:
            if response.status_code >= 300:
                response.read()
                return response
            if not arriving.goes_on_with(response):
                arriving.start_over(self._count)
                if response.status_code == 206:
                    raise httpx.ReadError("the file there is another one now")
            arriving.etag = response.headers.get("etag", "")
            for chunk in response.iter_raw(CHUNK_BYTES):
                if self._stop.is_set():
                    raise Stopped(f"the download of {name} was stopped")
                arriving.add(chunk)
                self._count(len(chunk))
                self._patience.moved()
            return response


@dataclass
class Arriving:
    """A file that has not arrived whole."""

    path: Path
    stream: BinaryIO
    digest: Any
    size: int = 0
    etag: str = ""
    was_found: bool = False
    """An earlier command left its beginning."""

    def read_found(self) -> None:
        for chunk in iter(lambda: self.stream.read(CHUNK_BYTES), b""):
            self.digest.update(chunk)
            self.size += len(chunk)
        self.was_found = self.size > 0

    def headers(self) -> Mapping[str, str]:
        if not self.size:
            return {}
        return {"Range": f"bytes={self.size}-", **({"If-Range": self.etag} if self.etag else {})}

    def goes_on_with(self, response: "httpx.Response") -> bool:
        """Whether an answer begins where this ends, in the same object; not every store looks at If-Range."""
        if response.status_code != 206:
            return not self.size
        begins = response.headers.get("content-range", "").startswith(f"bytes {self.size}-")
        return begins and self.etag in ("", response.headers.get("etag", ""))

    def add(self, chunk: bytes) -> None:
        self.stream.write(chunk)
        self.digest.update(chunk)
        self.size += len(chunk)

    def start_over(self, count: Callable[[int], None]) -> None:
        count(-self.size)
        self.stream.seek(0)
        self.stream.truncate()
        self.size, self.digest, self.etag, self.was_found = 0, hashlib.sha256(), "", False


@contextlib.contextmanager
def _arriving(path: Path, *, keep: bool) -> Iterator[Arriving]:
    """The file to write to, locked, with what is there of it; what has no checksum is not kept for later."""
    with path.open("a+b") as stream:
        _lock(stream, path)
        stream.seek(0)
        arriving = Arriving(path, stream, hashlib.sha256())
        arriving.read_found()
        try:
            yield arriving
        finally:
            if not keep or not arriving.size:
                path.unlink(missing_ok=True)


def _lock(stream: BinaryIO, path: Path) -> None:
    """Two that write to one file would spoil it for each other."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CliError(f"another firectl is downloading to {path.parent}; wait for it to end") from None


def _part_path(target: Path, sha256: str) -> Path:
    """Named after the content, so that it is never gone on with as another file's beginning."""
    return target.with_name(f".{target.name}.{sha256[:12] or 'unchecked'}.part")


def _is_there(target: Path, size: int | None, sha256: str) -> bool:
    if not target.is_file() or target.stat().st_size != size:
        return False
    with target.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == sha256


def _refuse_too_little_room(offer: Offer, folder: Path) -> None:
    there = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    free = shutil.disk_usage(folder).free
    if offer.total is not None and offer.total - there > free:
        needed = byte_size(offer.total - there)
        raise CliError(f"{folder} has room for {byte_size(free)}, and {needed} are to come")


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Says plainly what is wrong with the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Stopped(
                f"the disk of {folder} is full", advice=["make room, then type the same command again"]
            ) from None
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise CliError(f"{folder} is a file; name a folder to put the files in") from None
        raise CliError(f"cannot write to {folder}: {error.strerror or error}") from None


def _safe_name(name: str) -> str:
    if _POOLING_CONFIG.fullmatch(name):
        return name
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        raise CliError(f'"{name}", which the server names, is not a plain file name; nothing was written')
    return name
