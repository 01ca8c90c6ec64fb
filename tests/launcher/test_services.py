"""The embedded services: their data outlives a kill, and their ports and passwords are remembered."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from launcher.embedded import Services
from launcher.program import Program, StartFailed, spawn
from tests.launcher.programs import processes_of, wait_until

Start = Callable[[Program], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a service and waits until it is ready."""
    started: list[subprocess.Popen[bytes]] = []

    def launch(program: Program) -> subprocess.Popen[bytes]:
        process = spawn(program)
        started.append(process)
        wait_until(lambda: program.ready(process.pid), f"{program.name} is ready")
        return process

    yield launch
    for process in started:
        process.kill()
        process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_postgres_has_its_rows_after_a_kill(tmp_path: Path, start: Start) -> None:
    postgres = Services.of(tmp_path).postgres
    process = start(postgres.program(tmp_path / "log"))
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 'kept' AS note")
    kill(process)
    start(postgres.program(tmp_path / "log"))
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT note FROM notes").fetchone() == ("kept",)


def test_postgres_wants_its_password(tmp_path: Path, start: Start) -> None:
    postgres = Services.of(tmp_path).postgres
    start(postgres.program(tmp_path / "log"))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url.replace(postgres.password, "guess"))


def test_postgres_leaves_nothing_when_it_is_told_that_the_supervisor_died(
    tmp_path: Path, start: Start
) -> None:
    program = Services.of(tmp_path).postgres.program(tmp_path / "log")
    start(program).send_signal(program.death_signal)
    wait_until(lambda: processes_of(tmp_path) == [], "all of its processes are gone")


def test_a_pid_file_that_names_another_program_does_not_keep_postgres_from_starting(
    tmp_path: Path, start: Start
) -> None:
    postgres = Services.of(tmp_path).postgres
    process = start(postgres.program(tmp_path / "log"))
    process.send_signal(signal.SIGINT)
    process.wait()
    (postgres.data / "postmaster.pid").write_text(f"{os.getpid()}\n{postgres.data}\n")
    start(postgres.program(tmp_path / "log"))


def test_an_interrupted_initdb_is_done_again(tmp_path: Path, start: Start) -> None:
    postgres = Services.of(tmp_path).postgres
    half = postgres.directory / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    start(postgres.program(tmp_path / "log"))
    assert not half.exists()


def test_valkey_has_its_keys_after_a_kill(tmp_path: Path, start: Start) -> None:
    valkey = Services.of(tmp_path).valkey
    process = start(valkey.program(tmp_path / "log"))
    assert b"+OK" in valkey.ask("SET note kept")
    kill(process)
    start(valkey.program(tmp_path / "log"))
    assert b"kept" in valkey.ask("GET note")


def test_valkey_wants_its_password(tmp_path: Path, start: Start) -> None:
    valkey = Services.of(tmp_path).valkey
    start(valkey.program(tmp_path / "log"))
    with socket.create_connection(("127.0.0.1", valkey.port)) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")


def test_seaweedfs_has_its_objects_after_a_kill(tmp_path: Path, start: Start) -> None:
    services = Services.of(tmp_path)
    process = start(services.seaweedfs.program(tmp_path / "log"))
    assert not list(Path(tempfile.gettempdir()).glob(f"weed.*.{process.pid}")), "it logs where it is told to"
    store = store_of(services)
    store.ensure_bucket()
    store.put_bytes("accounts/a/note", b"kept")
    kill(process)
    start(services.seaweedfs.program(tmp_path / "log"))
    assert store.get_bytes("accounts/a/note") == b"kept"
    store.put_bytes("accounts/a/other", b"new")


def store_of(services: Services) -> ObjectStore:
    names = {name.removeprefix("HEARTH_").lower(): value for name, value in services.environment().items()}
    return ObjectStore.from_settings(Settings(**names))  # type: ignore[arg-type]


def test_ports_and_passwords_are_remembered(tmp_path: Path) -> None:
    assert Services.of(tmp_path) == Services.of(tmp_path)
    assert (tmp_path / "services.json").stat().st_mode & 0o777 == 0o600


def test_a_port_that_somebody_took_meanwhile_is_chosen_anew(tmp_path: Path) -> None:
    before = Services.of(tmp_path)
    with socket.create_server(("127.0.0.1", before.valkey.port)):
        after = Services.of(tmp_path)
    assert after.valkey.port != before.valkey.port
    assert after.valkey.password == before.valkey.password
    assert after.postgres == before.postgres


def test_a_damaged_record_of_the_passwords_is_never_replaced(tmp_path: Path) -> None:
    Services.of(tmp_path)
    (tmp_path / "services.json").write_text("{")
    with pytest.raises(StartFailed, match=r"services\.json is damaged"):
        Services.of(tmp_path)
    assert (tmp_path / "services.json").read_text() == "{"
