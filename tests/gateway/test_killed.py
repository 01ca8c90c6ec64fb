"""A gateway that is killed: what it had written stays, what it held is lost, nothing counts twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import func, select

from controlplane.resources.tables import LedgerRow, SpendRow
from tests.gateway.serving import wait_until

MODEL = "accounts/fireworks/models/llama"
PRICES = '{"tokens": {"default": {"prompt": "1", "completion": "1"}}}'
COST = 10_000
"""Of a request, in nano-dollars: 7 prompt and 3 completion tokens."""


@pytest.fixture
def run_gateway(settings):
    """Runs a gateway in a process of its own, until it is killed."""

    @contextmanager
    def run() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = {
            **os.environ,
            "HEARTH_DATABASE_URL": settings.database_url,
            "HEARTH_REDIS_URL": settings.redis_url,
            "HEARTH_S3_ENDPOINT": settings.s3_endpoint,
            "HEARTH_S3_ACCESS_KEY": settings.s3_access_key,
            "HEARTH_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
            "HEARTH_PRICES": PRICES,
        }
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "gateway.app:create_app",
            "--factory",
            "--port",
            str(port),
        ]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: answers(url), seconds=60)
            yield url, process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    return run


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def ask(url: str, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(
        f"{url}/v1/completions", json={"model": MODEL, "prompt": "count"}, headers=headers, timeout=30
    )
    assert answer.status_code == 200


def test_a_killed_gateway_loses_its_buffer_at_most(run_gateway, world, engine_url, db):
    base = world.add_base("fireworks", "llama", public=True)
    deployment = world.add_deployment("fireworks", "shared", base)
    world.add_replica(deployment, engine_url, "base-uid")
    world.load("fireworks", "llama-1", base, deployment)
    key = world.keys["acme"]

    def counted() -> tuple[int, int]:
        with db.session() as session:
            entries = session.scalar(select(func.count()).select_from(LedgerRow)) or 0
            return entries, int(session.scalar(select(func.sum(SpendRow.cost_nanos))) or 0)

    with run_gateway() as (url, process):
        for _ in range(3):
            ask(url, key)
        wait_until(lambda: counted() == (3, 3 * COST))
        for _ in range(2):
            ask(url, key)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept, cost = counted()
    assert 3 <= kept <= 5
    assert cost == kept * COST
    with run_gateway() as (url, _):
        ask(url, key)
        wait_until(lambda: counted() == (kept + 1, (kept + 1) * COST))
