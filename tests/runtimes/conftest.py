from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers.runtimes.process import observe_process, remove_process, stop_process

Until = Callable[..., None]


@pytest.fixture
def until() -> Until:
    """Wait for a condition, or fail at a generous deadline."""

    def wait(condition: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.02)

    return wait


@pytest.fixture
def directory(tmp_path: Path, until: Until) -> Iterator[Path]:
    """A process directory; what still runs in it at the end is stopped."""
    path = tmp_path / "process"
    yield path
    if observe_process(path).state == "RUNNING":
        stop_process(path, 0)
        until(lambda: observe_process(path).state != "RUNNING")
    remove_process(path)


def session_members(directory: Path) -> list[int]:
    """Every live process of the session that the shim of this directory leads, zombies aside."""
    session = int((directory / "session").read_text())
    return [pid for pid in _pids() if _is_member(pid, session)]


def _is_member(pid: int, session: int) -> bool:
    found = _session_and_state(pid)
    return found is not None and found[0] == session and found[1] != "Z"


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _session_and_state(pid: int) -> tuple[int, str] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[3]), fields[0]


@pytest.fixture
def alive() -> Callable[[Path], list[int]]:
    return session_members


@pytest.fixture
def shim_pids(alive: Callable[[Path], list[int]]) -> Callable[[Path], list[int]]:
    """The guard and the monitor, in this order."""

    def find(directory: Path) -> list[int]:
        return sorted(pid for pid in alive(directory) if "process_shim.py" in _command_line(pid))

    return find


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


@pytest.fixture
def environ() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
