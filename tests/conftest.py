"""What every test may ask for: real services, a database of its own built by the migrations, settings."""

from __future__ import annotations

import gc
import signal
import time
import uuid
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from controlplane.config import Settings
from controlplane.db import migrate
from controlplane.storage import ObjectStore
from launcher.embedded import Services
from launcher.program import Program, last_words, spawn

START_SECONDS = 60.0
# A shell that starts the tests in the background has them ignore Ctrl-C; what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Have garbage collected rarely, and leave out of it what is imported and collected, which stays.

    Going through all of it takes a second, on a busy machine three, in which no server in this process
    answers; and with the thresholds that Python begins with it was a fifth of the tests' time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 10, 3)
        gc.enable()


@pytest.fixture(scope="session")
def platform_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One PostgreSQL, one Valkey and one SeaweedFS for the whole session, started when first asked for."""
    data_dir = tmp_path_factory.mktemp("services")
    services = without_durability(Services.of(data_dir))
    programs = services.programs(data_dir)
    running = [(program, spawn(program)) for program in programs]
    try:
        for program, process in running:
            wait_for(program, process.pid)
        yield services
    finally:
        for program, process in running:
            process.send_signal(program.death_signal)
        for _, process in running:
            process.wait(START_SECONDS)
        services.seaweedfs.remove_sockets()


@pytest.fixture(scope="session")
def template_database(platform_services: Services) -> str:
    """The name of a database that the migrations built, to be copied."""
    name = "hearth_template"
    with admin_connection(platform_services) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    migrate(database_address(platform_services, name))
    return name


@pytest.fixture
def database_url(platform_services: Services, template_database: str) -> Iterator[str]:
    """A fresh database with the schema of the migrations."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with admin_connection(platform_services) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY FILE_COPY")
    yield database_address(platform_services, name)
    with admin_connection(platform_services) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def settings(platform_services: Services, database_url: str, tmp_path: Path) -> Settings:
    """Settings for a fresh database, a bucket of its own (made by `object_store`) and a fresh data directory.

    The broker is shared by all tests of the session: rows are looked up in the test's own database only.
    """
    return Settings(
        database_url=database_url,
        redis_url=platform_services.valkey.url,
        s3_endpoint=platform_services.seaweedfs.endpoint,
        s3_access_key=platform_services.seaweedfs.access_key,
        s3_secret_key=platform_services.seaweedfs.secret_key,
        s3_bucket=f"test-{uuid.uuid4().hex[:12]}",
        data_dir=tmp_path / "data",
    )


@pytest.fixture
def object_store(settings: Settings) -> Iterator[ObjectStore]:
    """The object store of `settings`, with its bucket; the bucket's objects go when the test is over."""
    store = ObjectStore.from_settings(settings)
    store.ensure_bucket()
    yield store
    for found in list(store.list("")):
        store.delete(found.key)


def wait_for(program: Program, pid: int) -> None:
    """Look again and again until the program is ready; fail with its last words after the deadline."""
    deadline = time.monotonic() + START_SECONDS
    while not program.ready(pid):
        if time.monotonic() > deadline:
            pytest.fail(f"{program.name} did not start: {last_words(program.log)}")
        time.sleep(0.02)


def without_durability(services: Services) -> Services:
    """Tests that a power cut ends are run again; waiting for the disk would be most of their time."""
    options = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    return replace(services, postgres=replace(services.postgres, options=options))


def admin_connection(services: Services) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(services.postgres.url, autocommit=True)


def database_address(services: Services, name: str) -> str:
    return services.postgres.url.rpartition("/")[0] + f"/{name}"
