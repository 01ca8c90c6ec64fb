"""`python -m workers.training` on a specification, in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controlplane.config import Settings
from workers.runtimes.node_settings import node_environment

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 150


class TrainerProcess:
    """A running trainer. `limits` are those of `resource.setrlimit`, by RLIMIT_…"""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        document: dict[str, Any],
        limits: Mapping[int, int] | None = None,
    ) -> None:
        folder.mkdir()
        (folder / "SPEC.json").write_text(json.dumps(document))
        self._log = folder / "log.txt"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers.training", "SPEC.json"],
                cwd=folder,
                env=node_environment(settings, os.environ) | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for limit, value in (limits or {}).items():
            resource.prlimit(self.process.pid, limit, (value, value))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition while the trainer runs."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def exit_status(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)

    def log(self) -> str:
        return self._log.read_text()


@contextmanager
def running(
    settings: Settings, folder: Path, document: dict[str, Any], limits: Mapping[int, int] | None = None
) -> Iterator[TrainerProcess]:
    trainer = TrainerProcess(settings, folder, document, limits)
    try:
        yield trainer
    finally:
        trainer.process.kill()
        trainer.process.wait()
