"""What the service adds to a job's training: a whole `hearth up`, and the quickstart's job on it.

What the trainer does is timed by its own log: what the API shows of its steps comes up to a second later. The
same model and rows are given to a plain trl script, since no job can start faster than its libraries are
imported and its model is loaded.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

QUICKSTART = Path(__file__).resolve().parents[1] / "quickstart"
BIN = Path(sys.executable).parent
LOOK_SECONDS = 0.02
STOP_SECONDS = 40
BEFORE_SECONDS, AFTER_SECONDS = 5.0, 3.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
LINE = re.compile(r"^(\S+ \S+) INFO (.*)$", re.MULTILINE)
TIME_FORM = "%Y-%m-%d %H:%M:%S,%f"
FIRST_STEP = "first step"
"""What `trl_script` says."""


@dataclass(frozen=True)
class Moments:
    """Seconds since the job was created."""

    started: float
    """Its trainer was started."""
    first_step: float
    """It had done its first step."""
    last_step: float
    uploading: float
    """It had saved the adapter, and began to upload it."""
    uploaded: float
    completed: float


class Platform:
    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._process = subprocess.Popen(
            [str(BIN / "hearth"), "up", "--data-dir", str(data_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        exports = (line.removeprefix("export ") for line in (data_dir / "env").read_text().splitlines())
        pairs = (line.partition("=") for line in exports if "=" in line)
        self.env = {name: shlex.split(value)[0] for name, _, value in pairs}

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_SECONDS)

    def firectl(self, *arguments: str) -> None:
        subprocess.run(
            [str(BIN / "firectl"), *arguments],
            env={**os.environ, **self.env},
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        asked = urllib.request.Request(
            f"{self.env['FIREWORKS_BASE_URL']}/v1/accounts/{self.env['FIREWORKS_ACCOUNT_ID']}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.env['FIREWORKS_API_KEY']}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def trainer_start(self) -> float:
        """When the one trainer was started; 0 before that."""
        found = (self._data_dir / "run" / "trainers").glob("*-1/SPEC.json")
        return next((path.stat().st_mtime for path in found), 0.0)


def measure_service(folder: Path) -> None:
    before = script_seconds(folder / "first")
    platform = Platform(folder / "data")
    try:
        platform.firectl("create", "model", "ember", str(QUICKSTART / "model"))
        platform.firectl("create", "dataset", "tickets", str(QUICKSTART / "data" / "train.jsonl"))
        found = _follow(platform)
    finally:
        platform.stop()
    script = min(before, script_seconds(folder / "second"))
    print(f"created to first step: {found.first_step:.2f} s, its trainer started after {found.started:.2f} s")
    print(f"a plain trl script's start to its first step: {script:.2f} s")
    print(f"overhead to the first step: {found.first_step - script:.2f} s (target ≤ {BEFORE_SECONDS} s)")
    uploading = found.uploaded - found.uploading
    after = found.completed - found.last_step - uploading
    print(f"last step to COMPLETED: {after:.2f} s besides uploading (target ≤ {AFTER_SECONDS} s)")
    print(f"  saving: {found.uploading - found.last_step:.2f} s, then uploading: {uploading:.2f} s")
    print(f"  from there, drawing and ending, to COMPLETED: {found.completed - found.uploaded:.2f} s")


def script_seconds(folder: Path) -> float:
    """From the start of a plain script to the end of its first step."""
    argv = [sys.executable, "-m", "benchmarks.trl_script", str(QUICKSTART / "model")]
    started = time.monotonic()
    with subprocess.Popen(
        [*argv, str(QUICKSTART / "data" / "train.jsonl"), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as script:
        assert script.stdout is not None
        for line in script.stdout:
            if line.strip() == FIRST_STEP:
                return time.monotonic() - started
    raise SystemExit(f"the plain script ended with {script.returncode} before its first step")


def _follow(platform: Platform) -> Moments:
    """Create the job, look at it often until it is complete, and read what its trainer printed."""
    body = {"dataset": "tickets", "baseModel": "ember", "conversation": {}, "epochs": 2}
    created, started = time.time(), 0.0
    platform.request("POST", "fineTuningJobs?fineTuningJobId=tickets", body)
    while (job := platform.request("GET", "fineTuningJobs/tickets"))["state"] not in ENDED:
        started = started or platform.trainer_start()
        time.sleep(LOOK_SECONDS)
    completed = time.time()
    if job["state"] != "COMPLETED":
        raise SystemExit(f"the job ended {job['state']}: {job['status']}")
    told = LINE.findall(platform.request("GET", "fineTuningJobs/tickets:logs")["text"])

    def times(text: str) -> list[float]:
        return [datetime.strptime(at, TIME_FORM).timestamp() for at, line in told if line.startswith(text)]

    steps = times("step ")  # The first and the last are among them.
    uploading, uploaded = times("uploading the adapter")[0], times("the adapter is uploaded")[0]
    moments = (started, steps[0], steps[-1], uploading, uploaded, completed)
    return Moments(*(moment - created for moment in moments))
