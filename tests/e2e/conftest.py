"""A whole platform of its own, started with `hearth up`: every part is the real one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
QUICKSTART = ROOT / "quickstart"
READY_SECONDS = 120
STOP_SECONDS = 40
IDLE_SECONDS = 5
"""The shortest window to zero here: nobody waits five minutes for a deployment to be idle."""
SETTINGS = {"HEARTH_SHORTEST_WINDOW_TO_ZERO_SECONDS": str(IDLE_SECONDS)}


class Platform:
    """A running `hearth up`, and what a user does with it."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.settings = {**SETTINGS, **(settings or {})}
        self.env: dict[str, str] = {}
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        log = (self.data_dir.parent / "up.log").open("a")
        self.process = subprocess.Popen(
            [str(BIN / "hearth"), "up", "--data-dir", str(self.data_dir)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **self.settings},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.data_dir.parent / "up.log").read_text()[-4000:]
        exports = (line.removeprefix("export ") for line in (self.data_dir / "env").read_text().splitlines())
        pairs = (line.partition("=") for line in exports if "=" in line)
        self.env = {name: shlex.split(value)[0] for name, _, value in pairs}

    def stop(self, how: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(STOP_SECONDS)

    def restart(self) -> None:
        assert self.stop() == 0
        self.start()

    @property
    def url(self) -> str:
        return self.env["FIREWORKS_BASE_URL"]

    @property
    def key(self) -> str:
        return self.env["FIREWORKS_API_KEY"]

    @property
    def account(self) -> str:
        return self.env["FIREWORKS_ACCOUNT_ID"]

    def firectl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One command, as typed in a shell that sourced the platform's `env`."""
        done = subprocess.run(
            [str(BIN / "firectl"), *arguments],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=120, **options)

    def get(self, path: str) -> dict[str, Any]:
        answer = self.request("GET", f"/v1/accounts/{self.account}/{path}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def chat(self, model: str, messages: list[dict[str, Any]], **options: Any) -> httpx.Response:
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 96, **options}
        return self.request("POST", "/inference/v1/chat/completions", json=body)


def wait_until(condition: Callable[[], Any], seconds: float = 180) -> Any:
    """The condition's first true value; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.2)
    return value


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("platform") / "data")
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def deployed(platform: Platform) -> Platform:
    """The main job done: a base model, an addon tuned from it, and both deployed on one vLLM."""
    platform.firectl("create", "model", "ember", str(QUICKSTART / "model"))
    platform.firectl("create", "dataset", "tickets", str(QUICKSTART / "data" / "train.jsonl"))
    settings = ("--settings-file", str(QUICKSTART / "job.yaml"))
    names = ("--base-model", f"accounts/{platform.account}/models/ember", "--dataset", "tickets")
    job = (
        "create",
        "fine-tuning-job",
        *settings,
        *names,
        "--model-id",
        "ember-tickets",
        "--job-id",
        "tickets",
    )
    platform.firectl("create", "deployment", "ember", "--deployment-id", "ember", "--enable-addons")
    platform.firectl(*job, "--wait")
    platform.firectl("deploy", "ember-tickets", "--deployment-id", "ember", "--wait")
    return platform
