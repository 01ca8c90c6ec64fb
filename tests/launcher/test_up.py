"""`hearth up` as a user sees it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from launcher.data_dir import DataDir
from tests.launcher.conftest import Up
from tests.launcher.programs import processes_of, wait_until

StartUp = Callable[..., Up]


def hearth(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launcher.main", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=120,
        check=False,
    )


def account_of_the_key(data_dir: Path) -> str:
    """What the platform says about the key in `env`."""
    env = DataDir.at(data_dir).read_env()
    headers = {"Authorization": f"Bearer {env['FIREWORKS_API_KEY']}"}
    answer = httpx.get(env["FIREWORKS_BASE_URL"] + "/verifyApiKey", headers=headers, timeout=30)
    return answer.headers["x-fireworks-account-id"]


def watched_at(data_dir: Path) -> dict[str, str]:
    """Where each part shows its numbers."""
    targets = json.loads(DataDir.at(data_dir).metrics_file.read_text())
    return {one["labels"]["part"]: f"http://{one['targets'][0]}" for one in targets}


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.ConnectError:
        return False


def store_secret(data_dir: Path) -> int:
    """The status of creating a secret: 409 when it is there already."""
    env = DataDir.at(data_dir).read_env()
    url = env["FIREWORKS_BASE_URL"] + "/v1/accounts/hearth/secrets"
    headers = {"Authorization": f"Bearer {env['FIREWORKS_API_KEY']}"}
    secret = {"name": "wandb", "keyName": "WANDB_API_KEY", "value": "x"}
    made = httpx.post(url, headers=headers, json=secret, timeout=30)
    return made.status_code


@pytest.mark.e2e
def test_a_platform_comes_back_with_everything_after_a_stop_and_after_a_kill(up: StartUp) -> None:
    first = up()
    assert first.ready_line().startswith("Hearth is ready at http://127.0.0.1:")
    env = DataDir.at(first.data_dir).read_env()
    assert env["FIREWORKS_ACCOUNT_ID"] == account_of_the_key(first.data_dir) == "hearth"
    assert store_secret(first.data_dir) == 200
    secret_keys = DataDir.at(first.data_dir).secret_keys_file.read_text()

    second = up()
    assert second.exit_status() == 1
    assert f"another hearth runs on {first.data_dir} (pid {first.process.pid})" in second.told()
    assert len(second.told().splitlines()) == 1
    assert f"(pid {first.process.pid})" in hearth("status", "--data-dir", str(first.data_dir)).stdout

    assert first.end(signal.SIGTERM) == 0
    assert processes_of(first.data_dir) == []

    third = up()
    third.ready_line()
    assert DataDir.at(third.data_dir).read_env() == env
    assert DataDir.at(third.data_dir).secret_keys_file.read_text() == secret_keys
    assert store_secret(third.data_dir) == 409
    third.end(signal.SIGKILL)
    wait_until(lambda: processes_of(third.data_dir) == [], "nothing is left of a killed platform")

    fourth = up()
    fourth.ready_line()
    assert account_of_the_key(fourth.data_dir) == "hearth"
    assert hearth("down", "--data-dir", str(fourth.data_dir)).returncode == 0
    assert fourth.exit_status() == 0
    assert processes_of(fourth.data_dir) == []


@pytest.mark.e2e
def test_a_platform_in_the_background_is_ready_when_the_command_returns(tmp_path: Path) -> None:
    data_dir = tmp_path / "hearth"
    try:
        started = hearth("up", "--detach", "--data-dir", str(data_dir))
        assert started.returncode == 0, started.stderr
        assert "Hearth is ready at" in started.stdout
        assert account_of_the_key(data_dir) == "hearth"
        for part, url in watched_at(data_dir).items():
            wait_until(partial(is_ready, url), f"{part} is ready")
            assert f'hearth_build_info{{part="{part}"' in httpx.get(f"{url}/metrics").text
        public = DataDir.at(data_dir).read_env()["FIREWORKS_BASE_URL"]
        assert httpx.get(f"{public}/metrics").status_code == 401
    finally:
        assert hearth("down", "--data-dir", str(data_dir)).returncode == 0
    assert processes_of(data_dir) == []


def test_a_port_that_is_taken_is_one_line_and_nothing_starts(up: StartUp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = up("--port", str(port))
        assert refused.exit_status() == 1
    assert refused.told() == f"hearth: port {port} of 127.0.0.1 is taken; choose another with --port\n"


def test_a_wrong_setting_is_one_line_and_exit_status_2(up: StartUp) -> None:
    refused = up(HEARTH_MAX_TRAINERS="none")
    assert refused.exit_status() == 2
    assert [line.split(":")[:2] for line in refused.told().splitlines()] == [
        ["hearth", " HEARTH_MAX_TRAINERS"]
    ]
    assert processes_of(refused.data_dir) == []


def test_the_background_start_shows_why_it_failed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = hearth("up", "--detach", "--data-dir", str(tmp_path), "--port", port)
    assert refused.returncode == 1
    assert f"port {port} of 127.0.0.1 is taken" in refused.stderr


def test_down_and_status_of_a_place_where_nothing_runs(tmp_path: Path) -> None:
    assert hearth("down", "--data-dir", str(tmp_path)).returncode == 0
    assert hearth("status", "--data-dir", str(tmp_path)).returncode == 1


@pytest.mark.parametrize("part", ["api", "gateway", "worker", "beat", "migrate"])
def test_each_part_names_the_settings_that_it_misses(part: str) -> None:
    refused = hearth(part)
    assert refused.returncode == 2
    assert "hearth: HEARTH_DATABASE_URL: is not set\n" in refused.stderr
    assert all(line.startswith("hearth: HEARTH_") for line in refused.stderr.splitlines())
