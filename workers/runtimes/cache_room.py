"""Room in a node's cache: what is used least recently makes way, and what is in use never does."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from workers.runtimes.cache_uses import is_used, locked

SPARE_BYTES = 64 * 1024 * 1024
"""Left free beside what is fetched."""
FREE_SHARE = 10
"""Without a limit of its own the cache leaves a tenth of the disk free, if what is unused suffices for that:
where less is free, nodes of a cluster begin to turn pods away."""
BLOCK_BYTES = 512
"""Of `st_blocks`, whatever the disk's own are."""
KINDS = ("models", "adapters")
ROOM_LOCK = "room"
"""Folders' names begin with a hash or a uid, so none has a lock of this name."""


class NoRoom(Exception):
    """`lasting`: even an empty cache would be too small."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.message = message
        self.lasting = lasting


@dataclass(frozen=True)
class Room:
    limit: int | None
    held: int
    """By everything in the cache, with what is still to come of what is on its way."""
    free: int
    """Of the disk, without that."""
    disk: int

    def has(self, needed: int) -> bool:
        return self.free >= needed + SPARE_BYTES and self._is_allowed(needed)

    def has_plenty(self, needed: int) -> bool:
        if self.limit is not None:
            return self.has(needed)
        return self.free >= needed + max(SPARE_BYTES, self.disk // FREE_SHARE)

    def _is_allowed(self, needed: int) -> bool:
        return self.limit is None or self.held + needed <= self.limit


@contextmanager
def taking_room(cache_dir: Path, needed: int, limit: int | None, *, evicting: bool) -> Iterator[None]:
    """The body takes the room, before anybody else looks for some. Raises NoRoom."""
    with locked(cache_dir, ROOM_LOCK):
        victims = _victims(cache_dir) if evicting else iter(())
        room = measure(cache_dir, limit)
        while not room.has_plenty(needed) and (victim := next(victims, None)):
            _remove(cache_dir, victim)
            room = measure(cache_dir, limit)
        if not room.has(needed):
            raise _no_room(room, needed)
        yield


def measure(cache_dir: Path, limit: int | None) -> Room:
    held = to_come = 0
    for kind in ("staging", *KINDS):  # in this order what is just done counts twice, rather than not at all
        for size, on_disk in _sizes(cache_dir / kind):
            held += size
            if kind == "staging":
                to_come += max(size - on_disk, 0)
    disk = shutil.disk_usage(cache_dir)
    return Room(limit, held, disk.free - to_come, disk.total)


def _sizes(folder: Path) -> Iterator[tuple[int, int]]:
    """(length, bytes on the disk) of each file."""
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found = file.lstat()
            if stat.S_ISREG(found.st_mode):
                yield found.st_size, found.st_blocks * BLOCK_BYTES


def _victims(cache_dir: Path) -> Iterator[Path]:
    """What crashes left behind, and then what is there, the least recently used first."""
    yield from (cache_dir / "staging").glob("*")
    whole = [folder for kind in KINDS for folder in (cache_dir / kind).glob("*")]
    yield from sorted(whole, key=_last_use)


def _last_use(folder: Path) -> float:
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0


def _remove(cache_dir: Path, victim: Path) -> None:
    """Nothing happens where it is in use, or somebody is at work on it."""
    on_its_way = victim.parent.name == "staging"
    name = victim.name.rpartition("-")[0] if on_its_way else victim.name
    with suppress(BlockingIOError, FileNotFoundError), locked(cache_dir, name, wait=False):
        if on_its_way:
            shutil.rmtree(victim, ignore_errors=True)
        elif is_used(cache_dir, name):
            os.utime(victim)
        else:
            # First it stops being there as a whole: what a crash leaves of it is nothing to serve from.
            grave = cache_dir / "staging" / f"{name}-{uuid.uuid4().hex}"
            victim.rename(grave)
            shutil.rmtree(grave, ignore_errors=True)


def _no_room(room: Room, needed: int) -> NoRoom:
    if room.limit is not None and room.held + needed > room.limit:
        said = (
            f"the node's cache is full: of the {room.limit} bytes that it may hold {room.held} are in use, "
            f"and the files need {needed}"
        )
        return NoRoom(said, lasting=needed > room.limit)
    return NoRoom(disk_full(needed, max(room.free, 0)), lasting=False)


def disk_full(needed: int, free: int) -> str:
    return f"the disk of the node is full: the files need {needed} bytes and {free} bytes are free"
