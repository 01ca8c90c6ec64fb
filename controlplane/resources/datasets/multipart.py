"""A multipart upload that goes to the object store as it arrives, with a bounded amount held in memory."""

from __future__ import annotations

import asyncio
import queue
from dataclasses import dataclass, field
from io import RawIOBase
from typing import BinaryIO, cast

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header

from controlplane.errors import ApiError, Code, invalid
from controlplane.storage import ObjectStore

# Chunks between the request and the store: at most this many of what the server reads at once (64 KiB).
CHUNKS_IN_FLIGHT = 64


class ChunkReader(RawIOBase):
    """The reading end: blocks for chunks that the parser puts in; None ends it, an error breaks it."""

    def __init__(self) -> None:
        self.chunks: queue.Queue[bytes | Exception | None] = queue.Queue(CHUNKS_IN_FLIGHT)
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._ended and (size < 0 or len(self._rest) < size):
            chunk = self.chunks.get()
            if isinstance(chunk, Exception):
                self._ended = True
                raise chunk
            if chunk is None:
                self._ended = True
            else:
                self._rest += chunk
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

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self.header_value += data[start:end]

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

    What was written of a refused or broken upload is deleted.
    """
    part = FilePart()
    parser = MultipartParser(_boundary(request), part.callbacks())  # type: ignore[arg-type]
    reader = ChunkReader()
    writing = asyncio.create_task(asyncio.to_thread(store.put_stream, key, cast(BinaryIO, reader)))
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
    writing: asyncio.Task[int],
) -> None:
    async for chunk in request.stream():
        try:
            parser.write(chunk)
        except MultipartParseError as error:
            raise invalid(f"the upload is not well-formed multipart/form-data: {error}") from None
        if part.size > limit:
            text = f"the file is larger than {limit} bytes; upload it through getUploadEndpoint instead"
            raise ApiError(Code.OUT_OF_RANGE, text, http_status=413)
        for piece in part.pending:
            await _put(reader, piece, writing)
        part.pending.clear()
    if not part.seen or part.inside:
        raise invalid("the upload ended before its part named file did", "file")
    if part.size == 0:
        raise invalid("the file is empty", "file")


async def _put(reader: ChunkReader, chunk: bytes | Exception | None, writing: asyncio.Task[int]) -> None:
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
