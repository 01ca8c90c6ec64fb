"""Engines and trainers: they outlive the worker that started them, but not the platform.

Each has a folder under `run/` with a `lock` that is held while anything of it is alive, and obeys a
`stop.json` in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import struct
from pathlib import Path

from launcher.files import write_private

# struct flock of 64-bit Linux: type, whence, start, length, pid.
FLOCK = "hhqqi0q"
POLL_SECONDS = 0.1


async def stop_all(run: Path, grace_seconds: float, deadline_seconds: float) -> list[Path]:
    """End every process under `run`; returns the folders of those that are still there at the deadline.

    A trainer writes its checkpoint to the object store in its grace, so the services must still be there.
    """
    alive = living(run)
    for folder in alive:
        ask_to_stop(folder, grace_seconds)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_seconds
    while alive and loop.time() < deadline:
        await asyncio.sleep(POLL_SECONDS)
        alive = [folder for folder in alive if is_alive(folder)]
    return alive


def ask_to_stop(folder: Path, grace_seconds: float) -> None:
    """Through a file; where a full disk does not take one, by a signal to the process's session."""
    try:
        write_private(folder / "stop.json", json.dumps({"grace_seconds": grace_seconds}))
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.killpg(int((folder / "session").read_text()), signal.SIGTERM)


def living(run: Path) -> list[Path]:
    return [lock.parent for lock in run.rglob("lock") if is_alive(lock.parent)]


def is_alive(folder: Path) -> bool:
    """Ask who holds the lock, without taking it: a look must not keep anybody from starting."""
    try:
        fd = os.open(folder / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    finally:
        os.close(fd)
    return bool(struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK)
