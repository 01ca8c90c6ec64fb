"""Server-sent events: read from an engine as they arrive, and written to a caller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import msgspec

DONE = b"[DONE]"
DONE_EVENT = b"data: [DONE]\n\n"
BETWEEN = b"\n\n"


class EventTooLarge(Exception):
    """One event is larger than the gateway holds."""


class NoEnd(Exception):
    """The stream is over, and said nothing of its end."""


class EventParts:
    """A stream's whole events, as the network brings them, until its end mark.

    A part is the bytes of one event or of several. `is_done` says that the end mark has been seen.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], event_bytes: int) -> None:
        self.is_done = False
        self._first = b""
        self._read = read
        self._event_bytes = event_bytes
        self._rest: list[bytes] = []
        self._size = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def put_back(self, part: bytes) -> None:
        """Have a part come again, before the others."""
        self._first = part

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        while not self.is_done:
            chunk = await self._read()
            if not chunk:
                raise NoEnd
            if part := self._whole(chunk):
                return part
        raise StopAsyncIteration

    def _whole(self, chunk: bytes) -> bytes:
        """What is whole by now. The rest is kept in pieces, so that a large event is put together once."""
        if chunk.endswith(BETWEEN) and not self._rest:
            return self._until_done(chunk)
        # The pair may have been cut in two.
        last = self._rest[-1][-1:] if self._rest else b""
        cut = (last + chunk).rfind(BETWEEN) - len(last)
        if cut + len(last) < 0:
            self._keep(chunk)
            return b""
        whole = b"".join([*self._rest, chunk[: cut + 2]])
        self._rest, self._size = [], 0
        self._keep(chunk[cut + 2 :])
        return self._until_done(whole)

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._rest.append(piece)
            self._size += len(piece)
            if self._size > self._event_bytes:
                raise EventTooLarge

    def _until_done(self, part: bytes) -> bytes:
        # No text can hold this: line feeds are written as \\n inside of JSON.
        if part.startswith(DONE_EVENT):
            self.is_done = True
            return b""
        at = part.find(b"\n" + DONE_EVENT)
        if at >= 0:
            self.is_done = True
            return part[: at + 1]
        return part


def first_data(part: bytes) -> bytes:
    """The data of a part's first event that has any; empty without one."""
    at = 0
    while at < len(part):
        end = part.find(BETWEEN, at)
        if data := _data(part[at:] if end < 0 else part[at:end]):
            return data
        at = len(part) if end < 0 else end + len(BETWEEN)
    return b""


def data_of(part: bytes) -> list[bytes]:
    """The data of each event of a part. Comments are skipped."""
    return [data for event in part.split(BETWEEN) if (data := _data(event))]


def _data(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line.rstrip(b"\r") for line in event.split(b"\n")]
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))


def encode_events(contents: Iterable[object]) -> bytes:
    return b"".join(b"data: " + msgspec.json.encode(content) + b"\n\n" for content in contents)


def encode_done() -> bytes:
    return DONE_EVENT
