"""A multipart upload that goes to the object store as it arrives, with a bounded amount held in memory."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import RawIOBase
from typing import BinaryIO, cast

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import parse_options_header

from controlplane.errors import ApiError, Code, invalid
from controlplane.storage import ObjectStore

# Chunks between the request and the store: at most this many of what the server reads at once (64 KiB).
CHUNKS_IN_FLIGHT = 64
MAX_HEADER_BYTES = 16 * 1024
AROUND_THE_FILE_BYTES = 1024 * 1024
"""What a body may hold besides its file: boundaries, headers, and what stands before and after them."""

UPLOADS_AT_ONCE = 32
# Each upload holds a thread while it lasts, however slow its client is: they have a pool of their own.
UPLOAD_THREADS = ThreadPoolExecutor(UPLOADS_AT_ONCE, "upload")
UPLOAD_PLACES = threading.Semaphore(UPLOADS_AT_ONCE)
SILENCE_SECONDS = 60.0


class ChunkReader(RawIOBase):
    """The reading end: blocks for chunks that the parser puts in; None ends it, an error breaks it."""

    def __init__(self) -> None:
        self.chunks: queue.Queue[bytes | Exception | None] = queue.Queue(CHUNKS_IN_FLIGHT)
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes of what has come; waits until something has. Nothing at the end."""
        while not self._rest and not self._ended:
            chunk = self.chunks.get()
            self._ended = chunk is None or isinstance(chunk, Exception)
            if isinstance(chunk, Exception):
                raise chunk
            self._rest = chunk or b""
        size = len(self._rest) if size < 0 else size
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


@dataclass
class FilePart:
    """The parser's findings: the one part named `file`, its name, and the bytes not yet passed on."""

    filename: str = ""
    seen: bool = False
    inside: bool = False
    pending: list[bytes] = field(default_factory=list)
    size: int = 0
    header_name: bytes = b""
    header_value: bytes = b""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
        }

    def _part_begin(self) -> None:
        self.header_name = self.header_value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self.header_name += data[start:end]
        self._bound_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self.header_value += data[start:end]
        self._bound_header()

    def _bound_header(self) -> None:
        if len(self.header_name) + len(self.header_value) > MAX_HEADER_BYTES:
            raise invalid("a header of the upload's part is too long", "file")

    def _header_end(self) -> None:
        if self.header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self.header_value)
            if options.get(b"name") != b"file":
                raise invalid("the upload must have one part, named file", "file")
            if self.seen:
                raise invalid("the upload has more than one part named file", "file")
            self.seen = self.inside = True
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self.header_name = self.header_value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if not self.inside:
            raise invalid("the upload's part has no Content-Disposition", "file")
        self.pending.append(data[start:end])
        self.size += end - start

    def _part_end(self) -> None:
        self.inside = False


async def store_file_part(request: Request, store: ObjectStore, key: str, limit: int) -> FilePart:
    """Stream the request's `file` part to `key`. 400 for another shape, 413 over `limit` bytes.

    429 while too many are under way. What was written of a refused or broken upload is deleted.
    """
    part = FilePart()
    try:
        parser = MultipartParser(_boundary(request), part.callbacks())  # type: ignore[arg-type]
    except FormParserError as error:
        raise invalid(f"the upload is not well-formed multipart/form-data: {error}") from None
    if not UPLOAD_PLACES.acquire(blocking=False):
        text = f"{UPLOADS_AT_ONCE} uploads are under way; try again in a moment"
        raise ApiError(Code.RESOURCE_EXHAUSTED, text, headers={"Retry-After": "2"})
    reader = ChunkReader()
    loop = asyncio.get_running_loop()
    writing = loop.run_in_executor(UPLOAD_THREADS, store.put_stream, key, cast(BinaryIO, reader))
    writing.add_done_callback(lambda _: UPLOAD_PLACES.release())
    try:
        await _feed(request, parser, part, reader, limit, writing)
        await _put(reader, None, writing)
        await writing
    except BaseException as error:
        await _put(reader, ConnectionAbortedError(str(error)), writing)
        await asyncio.gather(writing, return_exceptions=True)
        await asyncio.to_thread(store.delete, key)
        raise
    return part


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise invalid("the upload must be multipart/form-data with a part named file")
    return options[b"boundary"]


async def _feed(
    request: Request,
    parser: MultipartParser,
    part: FilePart,
    reader: ChunkReader,
    limit: int,
    writing: asyncio.Future[int],
) -> None:
    received = 0
    async for chunk in _unless_silent(request.stream()):
        received += len(chunk)
        try:
            parser.write(chunk)
        except MultipartParseError as error:
            raise invalid(f"the upload is not well-formed multipart/form-data: {error}") from None
        if part.size > limit or received > limit + AROUND_THE_FILE_BYTES:
            text = f"the file is larger than {limit} bytes; upload it through getUploadEndpoint instead"
            raise ApiError(Code.OUT_OF_RANGE, text, http_status=413)
        for piece in part.pending:
            await _put(reader, piece, writing)
        part.pending.clear()
    if not part.seen or part.inside:
        raise invalid("the upload ended before its part named file did", "file")
    if part.size == 0:
        raise invalid("the file is empty", "file")


async def _unless_silent(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks; 504 when the client sends nothing for a while."""
    while True:
        try:
            chunk = await asyncio.wait_for(anext(chunks), SILENCE_SECONDS)
        except StopAsyncIteration:
            return
        except TimeoutError:
            text = f"nothing of the upload came for {SILENCE_SECONDS:.0f} s"
            raise ApiError(Code.DEADLINE_EXCEEDED, text) from None
        yield chunk


async def _put(reader: ChunkReader, chunk: bytes | Exception | None, writing: asyncio.Future[int]) -> None:
    """Hand a chunk on; waits while the store is slower than the client, and stops when it gave up."""
    while not writing.done():
        try:
            reader.chunks.put_nowait(chunk)
        except queue.Full:
            await asyncio.wait([writing], timeout=0.01)
        else:
            return
    if chunk is None or not isinstance(chunk, Exception):
        await writing
