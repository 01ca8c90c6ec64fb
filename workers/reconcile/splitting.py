"""Splitting datasets: one pass over the rows of a READY dataset writes all parts that it is cut into."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from io import RawIOBase
from itertools import islice
from typing import BinaryIO, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.queue import RECONCILE_DATASET, enqueue
from controlplane.resources.datasets.sources import BEING_CUT
from controlplane.resources.tables import DatasetRow
from controlplane.resources.uploads import READY, ask_for_check
from controlplane.storage import ObjectStore
from workers.context import WorkerContext
from workers.reconcile.lease import Lease
from workers.validation.datasets import MAX_ROW_BYTES
from workers.validation.jsonl import split_lines

PART_FILE = "rows.jsonl"
READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Part:
    uid: uuid.UUID
    prefix: str
    first: int
    count: int


def write_parts(context: WorkerContext, lease: Lease) -> None:
    """Write the parts that nobody has written yet; each is checked as soon as it is there.

    A worker that dies half-way is followed by one that goes on with the parts still missing.
    """
    with context.db.session() as session:
        row = lease.guard(session)
        keys = [row.prefix + name for name in sorted(row.files)]
        parts = unwritten(session, row)
    rows = rows_of(context.store, keys)
    position = 0
    for part in parts:
        skipped = part.first - position
        own = islice(rows, skipped, skipped + part.count)
        size = context.store.put_stream(part.prefix + PART_FILE, cast(BinaryIO, RowsFile(own)))
        position = part.first + part.count
        if hand_over(context, lease, part, size):
            enqueue(context.settings, RECONCILE_DATASET, part.uid)


def unwritten(session: Session, row: DatasetRow) -> list[Part]:
    """The parts to be written, in the order of their rows."""
    if row.state != READY:
        return []
    waiting = select(DatasetRow).where(DatasetRow.source_uid == row.uid, DatasetRow.reason == BEING_CUT)
    parts = [
        Part(part.uid, part.prefix, part.source["first"], part.source["count"])
        for part in session.scalars(waiting)
    ]
    return sorted(parts, key=lambda part: part.first)


def rows_of(store: ObjectStore, keys: list[str]) -> Iterator[bytes]:
    """The lines of a checked dataset's files, each with its newline."""
    for key in keys:
        for line in split_lines(store.open_stream(key), MAX_ROW_BYTES):
            if line and not line.isspace():
                yield line + b"\n"


class RowsFile(RawIOBase):
    """Rows as a file to read from."""

    def __init__(self, rows: Iterator[bytes]) -> None:
        self._rows = rows
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; nothing at the end."""
        if not self._rest:
            self._rest = self._some_rows()
        size = len(self._rest) if size < 0 else size
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def _some_rows(self) -> bytes:
        rows, length = list[bytes](), 0
        while length < READ_BYTES and (row := next(self._rows, None)) is not None:
            rows.append(row)
            length += len(row)
        return b"".join(rows)


def hand_over(context: WorkerContext, lease: Lease, part: Part, size: int) -> bool:
    """Have a written part checked; False when it was deleted meanwhile."""
    with context.db.session() as session:
        lease.guard(session)
        row = session.get(DatasetRow, part.uid, with_for_update=True)
        if row is None or row.reason != BEING_CUT:
            return False
        row.files = {PART_FILE: {"size": size, "sha256": ""}}
        ask_for_check(row)
        return True
