"""Server-sent events: read from an engine as they arrive, and written to a caller."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable

import msgspec

DONE = b"[DONE]"


class EventTooLarge(Exception):
    """One event is larger than the gateway holds."""


async def event_batches(chunks: AsyncIterable[bytes], event_bytes: int) -> AsyncIterator[list[bytes]]:
    """The data of each whole event, in batches as the network brings them. Comments are skipped."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n\n")
        if len(rest) > event_bytes:
            raise EventTooLarge
        if batch := [data for event in whole if (data := _data(event))]:
            yield batch


def _data(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line.rstrip(b"\r") for line in event.split(b"\n")]
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))


def encode_events(contents: Iterable[object]) -> bytes:
    return b"".join(b"data: " + msgspec.json.encode(content) + b"\n\n" for content in contents)


def encode_done() -> bytes:
    return b"data: " + DONE + b"\n\n"
