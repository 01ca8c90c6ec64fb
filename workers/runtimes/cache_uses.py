"""Who uses what of a node's cache. What says so are locks, which end with those who hold them.

CACHE/holders/<holder>         of an engine or a trainer of this node, locked for as long as it lives
CACHE/uses/<folder>/<holder>   it uses that model or addon, or is about to
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROMISE_SECONDS = 600.0
"""So long what was fetched stays though nobody lives who uses it. A pod's engine starts only after its
weights have come, and within five minutes of each of its ends."""
LIMIT_VARIABLE = "HEARTH_CACHE_GIB"


@dataclass(frozen=True)
class Keeper:
    """For whom files are fetched, and the bytes that the cache may hold; None: what its disk has room for."""

    holder: str
    limit: int | None = None


def keeper_here(cache_dir: Path, environ: Mapping[str, str], holder: str = "") -> Keeper:
    """This process uses what it fetches until it ends, also as what it becomes by exec."""
    holder = holder or uuid.uuid4().hex
    hold(cache_dir, holder)
    return Keeper(holder, limit_of(environ))


def limit_of(environ: Mapping[str, str]) -> int | None:
    return in_bytes(float(environ.get(LIMIT_VARIABLE) or 0))


def in_bytes(gib: float | None) -> int | None:
    return int(gib * 1024**3) if gib else None


def hold(cache_dir: Path, holder: str) -> None:
    """Nothing gives this back but the end of the process."""
    place = cache_dir / "holders" / holder
    place.parent.mkdir(parents=True, exist_ok=True)
    while True:
        lock = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_still(place, lock):  # else it was tidied away just before
            os.set_inheritable(lock, True)
            return
        os.close(lock)


def note_use(cache_dir: Path, folder: str, holder: str) -> None:
    place = cache_dir / "uses" / folder / holder
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()


def end_uses(cache_dir: Path, holder: str, but: Collection[str]) -> None:
    """The holder uses nothing any more but these, and what it was promised a moment ago."""
    for place in (cache_dir / "uses").glob(f"*/{holder}"):
        if place.parent.name not in but and not _is_promised(place):
            place.unlink(missing_ok=True)


def is_used(cache_dir: Path, folder: str) -> bool:
    """Whoever holds the folder's lock gets an answer that stays true."""
    return any(_is_in_force(cache_dir, place) for place in (cache_dir / "uses" / folder).glob("*"))


def _is_in_force(cache_dir: Path, use: Path) -> bool:
    if _is_alive(cache_dir / "holders" / use.name) or _is_promised(use):
        return True
    use.unlink(missing_ok=True)
    return False


def _is_promised(use: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - use.stat().st_mtime < PROMISE_SECONDS
    return False


def _is_alive(holder: Path) -> bool:
    with suppress(FileNotFoundError), open(holder, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        holder.unlink(missing_ok=True)
    return False


def _is_still(place: Path, lock: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock), place.stat())
    return False


@contextmanager
def locked(cache_dir: Path, name: str, *, wait: bool = True) -> Iterator[None]:
    """Raises BlockingIOError where another one has the lock and is not waited for."""
    locks = cache_dir / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with open(locks / name, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
