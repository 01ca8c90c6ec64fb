from __future__ import annotations

import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from launcher.addresses import choose_address, listen
from launcher.data_dir import DataDir
from launcher.logs import turn_over
from launcher.program import StartFailed

Usage = namedtuple("Usage", "total used free")


def test_a_place_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartFailed, match=r"cannot write to .*file/hearth: Not a directory"):
        DataDir.at(tmp_path / "file" / "hearth").make()


def test_a_full_disk_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 3 * 1024 * 1024))
    with pytest.raises(StartFailed, match="has 3 MiB left and 512 MiB are needed"):
        DataDir.at(tmp_path).make()


def test_the_env_file_keeps_any_value_and_is_private(tmp_path: Path) -> None:
    data_dir = DataDir.at(tmp_path)
    values = {"FIREWORKS_API_KEY": "fw_a b'c$d", "FIREWORKS_BASE_URL": "http://127.0.0.1:8600"}
    data_dir.write_env(values)
    assert data_dir.read_env() == values
    assert data_dir.env_file.stat().st_mode & 0o777 == 0o600


def test_the_port_of_the_last_start_is_taken_again(tmp_path: Path) -> None:
    data_dir = DataDir.at(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as usual:
        port = usual.getsockname()[1]
    data_dir.write_env({"FIREWORKS_BASE_URL": f"http://127.0.0.1:{port}"})
    assert choose_address(data_dir, "127.0.0.1", None).port == port


def test_another_port_is_chosen_only_when_none_was_asked_for(tmp_path: Path) -> None:
    data_dir = DataDir.at(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        data_dir.write_env({"FIREWORKS_BASE_URL": f"http://127.0.0.1:{port}"})
        assert choose_address(data_dir, "127.0.0.1", None).port != port
        with pytest.raises(StartFailed, match=f"port {port} of 127.0.0.1 is taken"):
            choose_address(data_dir, "127.0.0.1", port)


def test_a_host_of_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"192\.0\.2\.77 is no address of this machine"):
        choose_address(DataDir.at(tmp_path), "192.0.2.77", None)


def test_the_port_is_taken_from_the_moment_it_is_chosen(tmp_path: Path) -> None:
    address = choose_address(DataDir.at(tmp_path), "127.0.0.1", None)
    with listen(address), pytest.raises(StartFailed, match="is taken"):
        choose_address(DataDir.at(tmp_path), "127.0.0.1", address.port)


def test_a_long_log_is_turned_over_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        turn_over(log, limit=50)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "api.log.1").read_bytes() == b"x" * 100
