"""Small real programs for the supervisor, and `hearth up` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.program import Program
from tests.launcher.programs import WAIT_SECONDS


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Program]:
    """Makes a program out of a few lines of Python. It is ready once it has made the file `<name>.ready`."""

    def make(name: str, code: str = "serve()", **more: Any) -> Program:
        values: dict[str, Any] = {
            "name": name,
            "argv": (sys.executable, "-S", "-c", f"NAME = {name!r}\n{PRELUDE}\n{code}"),
            "env": dict(os.environ),
            "directory": tmp_path,
            "log": tmp_path / f"{name}.log",
            "ready": lambda pid: (tmp_path / f"{name}.ready").exists(),
            "stop_seconds": 20.0,
        }
        return Program(**{**values, **more})

    return make


PRELUDE = """
import os, signal, sys

def note(event):
    with open("events", "a") as events:
        events.write(event + " " + NAME + "\\n")

def stop(*_):
    note("stopped")
    sys.exit(0)

def serve():
    signal.signal(signal.SIGTERM, stop)
    note("started")
    with open(NAME + ".pid", "w") as file:
        file.write(str(os.getpid()))
    open(NAME + ".ready", "w").close()
    while True:
        signal.pause()
"""


class Up:
    """A `hearth up` on a data directory."""

    def __init__(self, data_dir: Path, *options: str, **variables: str) -> None:
        self.data_dir = data_dir
        self.errors = data_dir.parent / f"{data_dir.name}.errors"
        command = [sys.executable, "-m", "launcher.main", "up", "--data-dir", str(data_dir), *options]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **variables},
                start_new_session=True,
            )

    def ready_line(self) -> str:
        """The one line on standard output; fails the test when the platform ends without it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.told()
        return line

    def told(self) -> str:
        return self.errors.read_text()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.exit_status()

    def exit_status(self) -> int:
        return self.process.wait(WAIT_SECONDS)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts `hearth up`, on `tmp_path/hearth` unless told otherwise; kills what still runs at the end."""
    started: list[Up] = []

    def start(*options: str, data_dir: Path = tmp_path / "hearth", **variables: str) -> Up:
        started.append(Up(data_dir, *options, **variables))
        return started[-1]

    yield start
    for platform in started:
        platform.end(signal.SIGKILL)
