"""How much memory is left: as the machine says, as the container says, and as a process leaves it behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from workers.runtimes.node_memory import memory_now
from workers.runtimes.process import ProcessState, observe_process, start_process

GIB = 2**30


@pytest.fixture
def node(tmp_path: Path) -> tuple[Path, Path]:
    """/proc and /sys/fs/cgroup of a machine with 8 GiB, 6 of them free."""
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    cgroup.mkdir()
    (proc / "meminfo").write_text(f"MemTotal: {8 << 20} kB\nMemAvailable: {6 << 20} kB\nHugePages_Total: 0\n")
    (proc / "vmstat").write_text("nr_free_pages 12\noom_kill 3\n")
    return proc, cgroup


def test_a_machine_without_containers_says_what_it_has(node: tuple[Path, Path]) -> None:
    assert memory_now(*node) == {"total": 8 * GIB, "available": 6 * GIB, "oom_kills": 3}


def test_the_limit_of_a_container_counts_where_it_is_less(node: tuple[Path, Path]) -> None:
    proc, cgroup = node
    (cgroup / "memory.max").write_text(f"{2 * GIB}\n")
    (cgroup / "memory.current").write_text(f"{2 * GIB - 4096}\n")
    (cgroup / "memory.events").write_text("oom 9\noom_kill 5\n")
    assert memory_now(proc, cgroup) == {"total": 2 * GIB, "available": 4096, "oom_kills": 5}
    (cgroup / "memory.max").write_text("max\n")
    assert memory_now(proc, cgroup)["total"] == 8 * GIB


def test_where_nothing_can_be_read_nothing_is_claimed(tmp_path: Path) -> None:
    assert memory_now(tmp_path, tmp_path) == {"total": 0, "available": 0, "oom_kills": 0}


def test_this_machine_can_be_read() -> None:
    found = memory_now()
    assert 0 < found["available"] <= found["total"]


def test_a_process_that_was_killed_leaves_what_was_free_when_it_lived(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    code = f"import os, time; time.sleep(1); os.kill(os.getpid(), {int(signal.SIGKILL)})"
    start_process(directory, [sys.executable, "-c", code], dict(os.environ))
    while (seen := observe_process(directory)).state is ProcessState.RUNNING:
        pass
    assert (seen.state, seen.signal) == (ProcessState.EXITED, signal.SIGKILL)
    assert 0 < seen.memory["available"] <= seen.memory["total"]
    assert seen.memory["oom_kills"] >= 0
