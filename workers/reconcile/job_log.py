"""Keeping what a trainer prints: copied to the object store while it runs, and whole once it has ended.

A chunk's name says which bytes of which trainer's output it begins with, so that any worker goes on from
there, and writing a chunk again changes nothing. See `controlplane.resources.fine_tuning_jobs.logs`.
"""

from __future__ import annotations

import re

from controlplane.config import Settings
from controlplane.resources.fine_tuning_jobs.logs import (
    CHUNK_BYTES,
    MOST_CHUNKS,
    Chunk,
    chunk_key,
    list_chunks,
)
from controlplane.resources.tables import FineTuningJobRow
from controlplane.storage import ObjectStore
from workers.context import WorkerContext

_PATH = re.compile(r"(?<![\w/:.…-])(?:/[^\s/'\":,;()\[\]<>]+)+(?=/)(?=/[^\s/'\"])")
_OBJECT_KEY = re.compile(r"\baccounts/([a-z0-9-]+)/([a-z-]+)/[0-9a-f]{8}-[0-9a-f-]{27}\b")


def keep_log(context: WorkerContext, row: FineTuningJobRow, *, ended: bool) -> None:
    """Copies what the job's current trainer has printed since the last time."""
    chunks = list_chunks(context.store, row.prefix)
    last = chunks[-1] if chunks else None
    if last is not None and last.attempt == row.attempt:
        start, source = last.start, last.source
    else:
        start, source, last = (last.end if last else 0), 0, None
    while True:
        begins, data = context.trainers.read_trainer_log(str(row.uid), row.attempt, source, CHUNK_BYTES)
        if (
            begins > source and last is not None
        ):  # it printed faster than this came by: the rest goes on behind
            start, source, last = last.end, begins, None
            continue
        taken = whole_lines(data, ended=ended and len(data) < CHUNK_BYTES)
        if not taken:
            break
        content = cleaned(taken.decode(errors="replace"), context.settings, row.account_id).encode()
        written = Chunk(
            chunk_key(row.prefix, start, row.attempt, begins), start, row.attempt, begins, len(content)
        )
        if last is None or last.size != written.size:
            context.store.put_bytes(written.key, content)
        chunks = [*(chunk for chunk in chunks if chunk.key != written.key), written]
        if len(data) < CHUNK_BYTES:
            break
        start, source, last = written.end, begins + len(taken), None
    drop_oldest(context.store, chunks)


def whole_lines(data: bytes, *, ended: bool) -> bytes:
    """Up to the end of the last line: the next look may find the rest of it. One endless line is cut."""
    end = data.rfind(b"\n") + 1
    if ended or (not end and len(data) == CHUNK_BYTES):
        return data
    return data[:end]


def drop_oldest(store: ObjectStore, chunks: list[Chunk]) -> None:
    for chunk in chunks[:-MOST_CHUNKS]:
        store.delete(chunk.key)


def cleaned(text: str, settings: Settings, account_id: str) -> str:
    """The text without what is the platform's own: secrets, addresses, folders, other accounts' objects."""
    text = text.replace(settings.s3_secret_key.get_secret_value(), "***")
    for address in {settings.s3_endpoint, settings.signing_endpoint}:
        text = text.replace(address, "the object store")
    text = _OBJECT_KEY.sub(
        lambda key: key[0] if key[1] == account_id else f"accounts/{key[1]}/{key[2]}/…", text
    )
    return _PATH.sub("…", text)
