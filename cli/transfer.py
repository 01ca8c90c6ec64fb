"""Bytes between this machine and object storage, over signed URLs. The API key never goes there."""

import os
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from cli.client import trust_for
from cli.errors import CliError
from cli.local_files import LocalFile

if TYPE_CHECKING:
    import httpx

PARALLEL = 4
ATTEMPTS = 5
BACKOFF_SECONDS = 0.5  # before the second attempt; it doubles
_CHUNK = 1 << 20
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")
Count = Callable[[int], None]
Urls = Callable[[], Mapping[str, str]]


class SignedUrls:
    """Signed URLs by file name, asked for again when the storage says that they are too old."""

    def __init__(self, fetch: Urls) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._urls = dict(fetch())

    def of(self, name: str) -> str:
        with self._lock:
            if name not in self._urls:
                raise CliError(f"the server gave no address for {name}")
            return self._urls[name]

    def renewed(self, name: str, old: str) -> str:
        """A URL for the file other than the one that was refused."""
        with self._lock:
            if self._urls.get(name) == old:
                self._urls = dict(self._fetch())
        return self.of(name)

    def all(self) -> list[str]:
        return list(self._urls.values())

    def names(self) -> list[str]:
        return sorted(self._urls)


def upload(files: Sequence[LocalFile], fetch_urls: Urls, count: Count) -> None:
    """Puts every file to its signed URL, a few at a time."""
    urls = SignedUrls(fetch_urls)
    _each(urls, files, lambda file, http, stop: _put(http, file, urls, count, stop))


def download(fetch_urls: Urls, folder: Path, count: Count) -> list[Path]:
    """Gets every file into a folder; a file appears under its name only when it is whole."""
    urls = SignedUrls(fetch_urls)
    targets = {name: folder / _safe_name(name) for name in urls.names()}
    folder.mkdir(parents=True, exist_ok=True)
    _each(urls, list(targets), lambda name, http, stop: _get(http, name, targets[name], urls, count, stop))
    return list(targets.values())


def _each(
    urls: SignedUrls, items: Sequence[T], work: Callable[[T, "httpx.Client", threading.Event], None]
) -> None:
    """Runs the work for each item, PARALLEL at a time; the first failure stops the others and is raised."""
    stop = threading.Event()
    with _storage_client(urls) as http, ThreadPoolExecutor(PARALLEL) as pool:
        running: list[Future[None]] = [pool.submit(work, item, http, stop) for item in items]
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
            failed = next((f for f in done if f.exception() is not None), None)
            if failed is not None:
                failed.result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _storage_client(urls: SignedUrls) -> "httpx.Client":
    import httpx

    # Storage answers a PUT when it has the whole file safe, which takes long for big ones.
    timeout = httpx.Timeout(60.0, connect=10.0, read=600.0)
    return httpx.Client(timeout=timeout, verify=trust_for(urls.all()))


def _put(
    http: "httpx.Client", file: LocalFile, urls: SignedUrls, count: Count, stop: threading.Event
) -> None:
    def attempt(url: str) -> "httpx.Response":
        sent = 0

        def counted(number: int) -> None:
            nonlocal sent
            sent += number
            count(number)

        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.size),
            "x-goog-content-length-range": f"{file.size},{file.size}",
        }
        try:
            response = http.put(url, content=_chunks(file, counted, stop), headers=headers)
        except BaseException:
            count(-sent)
            raise
        if response.status_code >= 300:
            count(-sent)
        return response

    _with_retries(f"upload of {file.name}", file.name, urls, attempt, stop)


def _chunks(file: LocalFile, count: Count, stop: threading.Event) -> Iterator[bytes]:
    """The file's bytes, exactly as many as were announced."""
    left = file.size
    with file.path.open("rb") as stream:
        while left and not stop.is_set():
            chunk = stream.read(min(_CHUNK, left))
            if not chunk:
                raise CliError(f"{file.path} became shorter while it was uploaded")
            left -= len(chunk)
            count(len(chunk))
            yield chunk
    if left:
        raise CliError(f"the upload of {file.name} was stopped")


def _get(
    http: "httpx.Client", name: str, target: Path, urls: SignedUrls, count: Count, stop: threading.Event
) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")

    def attempt(url: str) -> "httpx.Response":
        received = 0
        with http.stream("GET", url) as response, part.open("wb") as stream:
            if response.status_code >= 300:
                response.read()
                return response
            try:
                for chunk in response.iter_bytes(_CHUNK):
                    if stop.is_set():
                        raise CliError(f"the download of {name} was stopped")
                    stream.write(chunk)
                    received += len(chunk)
                    count(len(chunk))
            except BaseException:
                count(-received)
                raise
            return response

    try:
        _with_retries(f"download of {name}", name, urls, attempt, stop)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _with_retries(
    what: str,
    name: str,
    urls: SignedUrls,
    attempt: Callable[[str], "httpx.Response"],
    stop: threading.Event,
) -> None:
    """Tries until it works: again after lost connections and 5xx, with a new URL after 403."""
    import httpx

    url, renewed, reason = urls.of(name), False, ""
    for number in range(ATTEMPTS):
        if number and stop.wait(min(8.0, BACKOFF_SECONDS * 2 ** (number - 1)) * random.uniform(0.5, 1.0)):
            raise CliError(f"the {what} was stopped")
        try:
            response = attempt(url)
        except httpx.TransportError as error:
            reason = f"{urlsplit(url).netloc}: {error or type(error).__name__}"
            continue
        if response.status_code < 300:
            return
        reason = f"{urlsplit(url).netloc} answered {response.status_code}{_storage_message(response)}"
        if response.status_code == 403 and not renewed:
            url, renewed = urls.renewed(name, url), True
        elif response.status_code not in _AGAIN:
            break
    raise CliError(f"the {what} failed: {reason}")


def _storage_message(response: "httpx.Response") -> str:
    """The <Message> of a storage's XML error."""
    found = re.search(r"<Message>([^<]{1,300})</Message>", response.text[:4000])
    return f": {found[1]}" if found else ""


def _safe_name(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        raise CliError(f'"{name}", which the server names, is not a plain file name; nothing was written')
    return name
