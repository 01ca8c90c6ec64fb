"""What the service adds to a job's training: a whole `hearth up`, and the quickstart's job on it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUICKSTART = Path(__file__).resolve().parents[1] / "quickstart"
BIN = Path(sys.executable).parent
LOOK_SECONDS = 0.02
STOP_SECONDS = 40
BEFORE_SECONDS, AFTER_SECONDS = 5.0, 3.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class Moments:
    """Seconds since the job was created."""

    started: float
    """Its trainer was started."""
    first_step: float
    last_step: float
    exited: float
    """Its trainer had uploaded the adapter and was gone."""
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

    def trainer_folder(self) -> Path | None:
        return next(iter((self._data_dir / "run" / "trainers").glob("*-1")), None)


def measure_service(folder: Path) -> None:
    platform = Platform(folder / "data")
    try:
        platform.firectl("create", "model", "ember", str(QUICKSTART / "model"))
        platform.firectl("create", "dataset", "tickets", str(QUICKSTART / "data" / "train.jsonl"))
        found = _follow(platform)
    finally:
        platform.stop()
    print(f"created to trainer started: {found.started:.2f} s (target ≤ {BEFORE_SECONDS} s)")
    print(f"  from there to the first step, importing and loading: {found.first_step - found.started:.2f} s")
    print(f"  from the last step to the trainer's end, uploading: {found.exited - found.last_step:.2f} s")
    after = found.completed - found.exited
    print(f"trainer ended to COMPLETED: {after:.2f} s (target ≤ {AFTER_SECONDS} s)")


def _follow(platform: Platform) -> Moments:
    """Create the job and look at it often, from outside and at its trainer's folder."""
    body = {"dataset": "tickets", "baseModel": "ember", "conversation": {}, "epochs": 2}
    began, wall = time.monotonic(), time.time()
    platform.request("POST", "fineTuningJobs?fineTuningJobId=tickets", body)
    seen: dict[str, float] = {}

    def note(name: str, at: float | None = None) -> None:
        seen.setdefault(name, time.monotonic() - began if at is None else at - wall)

    while "completed" not in seen:
        folder = platform.trainer_folder()
        if folder and (folder / "SPEC.json").exists():
            note("started", (folder / "SPEC.json").stat().st_mtime)
        if folder and (folder / "exit.json").exists():
            note("exited")
        job = platform.request("GET", "fineTuningJobs/tickets")
        progress = job.get("progress", {})
        if progress.get("step", 0) >= 1:
            note("first_step")
        if progress.get("step") and progress["step"] == progress.get("maxSteps"):
            note("last_step")
        if job["state"] in ENDED:
            note("exited")
            note("completed")
            if job["state"] != "COMPLETED":
                raise SystemExit(f"the job ended {job['state']}: {job['status']}")
        time.sleep(LOOK_SECONDS)
    return Moments(**seen)
