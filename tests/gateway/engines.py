"""Real engines for the tests, started as a worker starts them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.gateway.serving import wait_until
from workers.runtimes.base import ModelSource, ReplicaSpec
from workers.runtimes.vllm import EngineSpec, engine_command

START_SECONDS = 300


@contextmanager
def engine_running(model: Path, folder: Path, template: Path | None = None, **spec: Any) -> Iterator[str]:
    """The base URL of an engine that serves `model` as `base-uid`. `spec` is what else ReplicaSpec says."""
    (folder / "tmp").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    replica = ReplicaSpec("r", "base-uid", ModelSource("base", "", ()), "127.0.0.1", port, **spec)
    argv, env = engine_command(EngineSpec(replica, folder, 1), model, template, os.environ)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _is_up(url, process, folder / "log"), START_SECONDS)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _is_up(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-4000:]
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False
