"""What a job's trainers printed: chunks of text in the object store, read by their place in the whole.

    {prefix}log/{start:012d}-{attempt:04d}-{source:012d}.txt

`start` is where the chunk begins in the job's log. `attempt` and `source` say which trainer's output it is
made of, and from which byte on; they are the worker's, who writes the chunks while the trainer runs. Only the
last chunk still grows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from controlplane.storage import ObjectNotFound, ObjectStore

CHUNK_BYTES = 64 * 1024
MOST_CHUNKS = 160
"""The newest 10 MiB are kept."""
PAGE_BYTES = 4 * CHUNK_BYTES
"""The most that one answer holds."""

_KEY = re.compile(r"(\d{12})-(\d{4,})-(\d{12,})\.txt")


@dataclass(frozen=True)
class Chunk:
    key: str
    start: int
    attempt: int
    source: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class LogPage:
    text: str
    offset: int
    next_offset: int
    at_end: bool


def chunk_key(prefix: str, start: int, attempt: int, source: int) -> str:
    return f"{prefix}log/{start:012d}-{attempt:04d}-{source:012d}.txt"


def list_chunks(store: ObjectStore, prefix: str) -> list[Chunk]:
    """All chunks of a job's log, oldest first."""
    found = []
    for item in store.list(f"{prefix}log/"):
        if parts := _KEY.fullmatch(item.key.rpartition("/")[2]):
            start, attempt, source = map(int, parts.groups())
            found.append(Chunk(item.key, start, attempt, source, item.size))
    return sorted(found, key=lambda chunk: chunk.start)


def read_log(store: ObjectStore, prefix: str, offset: int) -> LogPage:
    """A page from byte `offset` on, or from the oldest that is kept."""
    chunks = [chunk for chunk in list_chunks(store, prefix) if chunk.end > offset]
    if not chunks:
        return LogPage("", offset, offset, True)
    first = max(offset, chunks[0].start)
    data, at = bytearray(), first
    for chunk in chunks:
        if data and chunk.end - first > PAGE_BYTES:
            return LogPage(data.decode(errors="replace"), first, at, False)
        data += _read(store, chunk)[max(0, at - chunk.start) :]
        at = max(at, chunk.end)
    return LogPage(data.decode(errors="replace"), first, at, True)


def read_last_lines(store: ObjectStore, prefix: str, lines: int) -> LogPage:
    """The last lines, as far as they fit into one page."""
    chunks = list_chunks(store, prefix)
    if not chunks:
        return LogPage("", 0, 0, True)
    data, end = b"", chunks[-1].end
    for chunk in reversed(chunks):
        if end - chunk.start > PAGE_BYTES or data.count(b"\n") > lines:
            break
        data = _read(store, chunk) + data
    kept = b"".join(data.splitlines(keepends=True)[-lines:]) if lines else b""
    return LogPage(kept.decode(errors="replace"), end - len(kept), end, True)


def _read(store: ObjectStore, chunk: Chunk) -> bytes:
    """What the chunk held when it was listed: what has come since belongs to the next page."""
    try:
        return store.read_range(chunk.key, 0, chunk.size)
    except ObjectNotFound:  # the oldest makes room while it is read
        return b""
