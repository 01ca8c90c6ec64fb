"""The processes of one job that trains on several accelerators: started together, ended together.

The first of them, rank 0, does whatever a job does once: it stages, tokenizes, reports, saves and uploads.
Each finds its place in the variables that `accelerate launch` sets too.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.training.errors import EXIT_INTERRUPTED, EXIT_OUTAGE

POLL_SECONDS = 0.1
PR_SET_PDEATHSIG = 1
PARENT = "HEARTH_RANKS_PARENT"
LAST_WORDS_SECONDS = 5.0
"""What ranks get to end by themselves once the first is done."""


@dataclass(frozen=True)
class Rank:
    number: int = 0
    count: int = 1

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Rank:
        return cls(int(environ.get("RANK", "0")), int(environ.get("WORLD_SIZE", "1")))

    @staticmethod
    def is_told(environ: Mapping[str, str]) -> bool:
        """This process is one of several, or alone by somebody's word."""
        return "RANK" in environ

    @property
    def is_first(self) -> bool:
        return self.number == 0

    @property
    def is_alone(self) -> bool:
        return self.count == 1


@dataclass(frozen=True)
class Ended:
    """How the ranks ended, as the one that caused it did."""

    rank: int
    status: int
    """The exit status; negative: the signal that killed it."""
    result: dict[str, Any] | None = None
    """What that rank would have written as the job's."""


class Ranks:
    """`count` processes of one command on this machine. `secrets`: variables of the first alone."""

    def __init__(
        self, argv: Sequence[str], count: int, folder: Path, secrets: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._stopping = False
        for number in range(count):
            failure_file(folder, number).unlink(missing_ok=True)
        surroundings = {**os.environ, **_surroundings(count, _free_port())}
        own = [{**_place(number), **((secrets or {}) if number == 0 else {})} for number in range(count)]
        self._processes = [subprocess.Popen(argv, env={**surroundings, **place}) for place in own]

    def stop(self) -> None:
        """Ask every rank to stop; they agree on the step after which they do."""
        self._stopping = True
        for process in self._processes:
            if process.poll() is None:
                process.terminate()

    def wait(self) -> Ended:
        """Until the first rank is done or one fails; then until nothing is left of them."""
        try:
            while (ended := self._look()) is None:
                time.sleep(POLL_SECONDS)
            return ended
        finally:
            self._end_all()

    def _look(self) -> Ended | None:
        statuses = [process.poll() for process in self._processes]
        if self._stopping and statuses[0] == EXIT_INTERRUPTED:
            return Ended(0, EXIT_INTERRUPTED)
        failed = [rank for rank, status in enumerate(statuses) if status not in (None, 0, EXIT_INTERRUPTED)]
        if failed:
            return self._stopped_first() or self._culprit(failed)
        return None if statuses[0] is None else Ended(0, statuses[0])

    def _stopped_first(self) -> Ended | None:
        """Whose partner leaves in the middle of an exchange fails: being asked to stop is no failure."""
        if not self._stopping:
            return None
        try:
            status = self._processes[0].wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        return Ended(0, status) if status == EXIT_INTERRUPTED else None

    def _culprit(self, failed: list[int]) -> Ended:
        """Of ranks that fail one after the other: who was killed or had no store, else who first said why."""
        time.sleep(POLL_SECONDS)  # Those that fail for the same reason, or for another's, do so at once.
        found = [
            (rank, status)
            for rank, process in enumerate(self._processes)
            if (status := process.poll()) not in (None, 0, EXIT_INTERRUPTED)
        ]
        killed = [pair for pair in found if pair[1] < 0 or pair[1] == EXIT_OUTAGE]
        rank, status = (killed or sorted(found, key=lambda pair: self._failed_at(pair[0])))[0]
        return Ended(rank, status, _read_failure(self._folder, rank))

    def _failed_at(self, rank: int) -> float:
        path = failure_file(self._folder, rank)
        return path.stat().st_mtime if path.exists() else float("inf")

    def _end_all(self) -> None:
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def failure_file(folder: Path, rank: int) -> Path:
    return folder / f"failure-{rank}.json"


def write_failure(folder: Path, rank: int, result: dict[str, Any]) -> None:
    """Leave it to the parent: why a rank fails may be only what another's failure does to it."""
    failure_file(folder, rank).write_text(json.dumps(result))


def _read_failure(folder: Path, rank: int) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(failure_file(folder, rank).read_text())
    except (OSError, ValueError):
        return None
    return found


@contextmanager
def started_ranks(
    argv: Sequence[str], count: int, folder: Path, secrets: Mapping[str, str] | None = None
) -> Iterator[Ranks]:
    """Ranks that get this process's SIGTERM too."""
    ranks: Ranks | None = None
    asked = False

    def pass_on(*_: object) -> None:
        nonlocal asked
        asked = True
        if ranks is not None:
            ranks.stop()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        ranks = Ranks(argv, count, folder, secrets)
        if asked:
            ranks.stop()
        yield ranks
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent() -> None:
    """A rank whose parent was killed ends at once: nobody would end it, and its partners wait for it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):  # It was quicker.
        os.kill(os.getpid(), signal.SIGKILL)


def trainer_argv(spec_file: Path) -> list[str]:
    return [sys.executable, "-m", "workers.training", str(spec_file)]


def _surroundings(count: int, port: int) -> dict[str, str]:
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    return {
        PARENT: str(os.getpid()),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }


def _place(number: int) -> dict[str, str]:
    return {"RANK": str(number), "LOCAL_RANK": str(number)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
