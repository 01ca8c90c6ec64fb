"""Programs of a benchmark, what they cost, and how to say it."""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from launcher.program import Program, last_words, spawn

START_SECONDS = 120.0
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def running(programs: Sequence[Program]) -> Iterator[list[int]]:
    """The programs' process ids, once all of them are ready; they are stopped at the end."""
    started = []
    try:
        for program in programs:
            started.append((program, spawn(program)))
        for program, process in started:
            _wait_for(program, process)
        yield [process.pid for _, process in started]
    finally:
        for program, process in reversed(started):
            process.send_signal(program.stop_signal)
        for _, process in started:
            process.wait(START_SECONDS)


def _wait_for(program: Program, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not program.ready(process.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{program.name} did not start: {last_words(program.log)}")
        time.sleep(0.05)


def cpu_seconds(pid: int) -> float:
    """What a process, its living children and those that it has waited for have used of all cores."""
    own = sum(_stat(pid)[11:15]) / TICKS
    return own + sum(sum(_stat(child)[11:13]) / TICKS for child in _children(pid))


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if _stat(int(entry.name))[1] == pid:
                    found.append(int(entry.name))
            except FileNotFoundError:
                continue
    return found


def _stat(pid: int) -> list[int]:
    """The numbers in /proc/PID/stat from the state on: the parent is [1], utime to cstime are [11:15]."""
    text = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [0, *map(int, text[1:])]


def memory(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]
