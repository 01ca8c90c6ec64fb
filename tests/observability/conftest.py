"""Parts that are watched: a worker and beat as processes of their own, a gateway and an api in this one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from controlplane.app import create_app as create_api
from controlplane.config import Settings
from controlplane.db import Database
from gateway.app import create_app as create_gateway
from gateway.gateway import Gateway
from launcher.embedded import Services
from tests.conftest import admin_connection, database_address
from tests.gateway.serving import Wire, serving, wait_until


@dataclass
class Watched:
    """The port of one part."""

    port: int
    log: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30)

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except httpx.TransportError:
            assert self.process is None or self.process.poll() is None, self.log and self.log.read_text()
            return False

    def names(self) -> set[str]:
        """Of the metrics, as queries name them: a histogram has three."""
        return {
            name
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for name in names_of(family)
        }

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """The numbers by the values of their labels, in the order of the labels' names."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
            if sample.name == name
        }


def names_of(family: object) -> set[str]:
    """A family that has no number yet still has its names."""
    name, kind = str(family.name), str(family.type)  # type: ignore[attr-defined]
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(kind, [""])
    return {name + ending for ending in endings}


@dataclass
class Parts:
    worker: Watched
    beat: Watched
    broker: Wire
    database_url: str
    redis_url: str


@pytest.fixture(scope="module")
def parts(
    platform_services: Services, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Parts]:
    """A worker and beat of a platform without a gateway, whose broker can be cut off."""
    name = f"watched_{uuid.uuid4().hex[:8]}"
    with admin_connection(platform_services) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY FILE_COPY")
    valkey = urlsplit(platform_services.valkey.url)
    wire = Wire(valkey.hostname or "", valkey.port or 0)
    redis_url = valkey._replace(netloc=f":{valkey.password}@127.0.0.1:{wire.port}", path="/7").geturl()
    folder = tmp_path_factory.mktemp("watched")
    environment = environment_of(
        platform_services, database_address(platform_services, name), redis_url, folder
    )
    with part("worker", environment, folder) as worker, part("beat", environment, folder) as beat:
        wait_until(worker.is_ready, seconds=120)
        wait_until(beat.is_ready, seconds=120)
        yield Parts(worker, beat, wire, environment["HEARTH_DATABASE_URL"], redis_url)
    wire.close()
    with admin_connection(platform_services) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def part(name: str, environment: dict[str, str], folder: Path) -> Iterator[Watched]:
    port, log = free_port(), folder / f"{name}.log"
    command = [sys.executable, "-m", "launcher.main", name]
    env = environment | {"HEARTH_METRICS_PORT": str(port)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output, cwd=folder)
    try:
        yield Watched(port, log, process)
    finally:
        process.terminate()
        process.wait(30)


def environment_of(services: Services, database_url: str, redis_url: str, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "HEARTH_DATABASE_URL": database_url,
        "HEARTH_REDIS_URL": redis_url,
        "HEARTH_S3_ENDPOINT": services.seaweedfs.endpoint,
        "HEARTH_S3_ACCESS_KEY": services.seaweedfs.access_key,
        "HEARTH_S3_SECRET_KEY": services.seaweedfs.secret_key,
        "HEARTH_DATA_DIR": str(folder / "data"),
        "HEARTH_LOG_FORMAT": "json",
    }


@pytest.fixture
def api(settings: Settings) -> Iterator[tuple[str, Watched]]:
    """An api's address, and its other port."""
    port = free_port()
    with serving(create_api(settings.model_copy(update={"metrics_port": port})), lifespan="on") as url:
        yield url, Watched(port)


@pytest.fixture
def gateway(settings: Settings) -> Iterator[tuple[str, Watched, Gateway]]:
    """A gateway's address, its other port, and what is inside it."""
    port = free_port()
    app = create_gateway(settings.model_copy(update={"metrics_port": port}))
    with serving(app, lifespan="on") as url:
        watched = Watched(port)
        wait_until(watched.is_ready)
        yield url, watched, app.gateway


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    found = Database(settings.database_url, pool_size=1)
    yield found
    found.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
