"""Engines and trainers are ended through their folders, whoever started them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from launcher.leftovers import is_alive, living, stop_all
from tests.launcher.programs import wait_until
from workers.runtimes.process import ProcessState, observe_process, start_process

ENGINE = "import signal\nopen('started', 'w').close()\nsignal.pause()"


async def test_every_process_under_the_run_folder_is_ended_and_counts_as_stopped(tmp_path: Path) -> None:
    folders = [tmp_path / "run" / "replicas" / "one", tmp_path / "run" / "trainers" / "two"]
    for folder in folders:
        start_process(folder, [sys.executable, "-c", ENGINE], dict(os.environ))
        wait_until((folder / "started").exists, "the process runs")
    assert sorted(living(tmp_path / "run")) == folders

    assert await stop_all(tmp_path / "run", grace_seconds=5, deadline_seconds=30) == []

    for folder in folders:
        assert not is_alive(folder)
        seen = observe_process(folder)
        assert (seen.state, seen.stopped) == (ProcessState.EXITED, True)


async def test_nothing_to_end_takes_no_time(tmp_path: Path) -> None:
    assert await stop_all(tmp_path / "never made", grace_seconds=5, deadline_seconds=0) == []
