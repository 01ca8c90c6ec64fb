"""Downloads over a network that breaks, by a program that is killed, into folders that cannot take them."""

from __future__ import annotations

import random
import shutil

import pytest

from tests.transfer.conftest import MIB, sha256_of, until

WEIGHTS = "model.safetensors"
BUFFERED = 8 * MIB  # what was under way when a connection ended
pytestmark = pytest.mark.usefixtures("ready")


@pytest.fixture
def ready(firectl, model, network):
    """The model is on the server."""
    ran = firectl("create", "model", "m", str(model))
    assert ran.code == 0, ran.err
    network.up = network.down = 0


@pytest.fixture
def target(tmp_path):
    return tmp_path / "got"


def same(one, other):
    return {path.name: sha256_of(path) for path in one.iterdir()} == {
        path.name: sha256_of(path) for path in other.iterdir()
    }


def test_a_download_that_is_cut_goes_on_where_it_stopped(firectl, network, model, target):
    network.cut_at(down=sorted(random.Random(5).sample(range(4 * MIB, 25 * MIB), 3)))
    ran = firectl("download", "model", "m", str(target))
    assert ran.code == 0, ran.err
    assert network.cuts == 3
    assert same(model, target)
    assert network.down <= (model / WEIGHTS).stat().st_size + 3 * BUFFERED


def test_a_killed_download_that_is_typed_again_goes_on(firectl, start, network, model, target):
    network.hold_at(16 * MIB)
    killed = start("download", "model", "m", str(target))
    until(lambda: network.is_holding)
    killed.kill()
    network.flow()
    assert not (target / WEIGHTS).exists()
    assert firectl("download", "model", "m", str(target)).code == 0
    assert same(model, target)
    assert network.down <= (model / WEIGHTS).stat().st_size + BUFFERED


def test_what_is_there_already_is_not_fetched_again(firectl, network, model, target):
    shutil.copytree(model, target)
    (target / "config.json").write_text("{}")
    assert firectl("download", "model", "m", str(target)).code == 0
    assert same(model, target)
    assert network.down < MIB


def test_a_beginning_that_is_spoilt_is_fetched_anew(firectl, start, network, model, target):
    network.hold_at(16 * MIB)
    killed = start("download", "model", "m", str(target))
    until(lambda: network.is_holding)
    killed.kill()
    network.flow()
    (part,) = target.glob(f".{WEIGHTS}.*.part")
    with part.open("r+b") as stream:
        stream.write(b"spoilt")
    ran = firectl("download", "model", "m", str(target))
    assert ran.code == 0, ran.err
    assert same(model, target)


def test_two_downloads_to_one_folder_do_not_spoil_each_other(firectl, start, network, model, target):
    network.hold_at(16 * MIB)
    first = start("download", "model", "m", str(target))
    until(lambda: network.is_holding)
    second = start("download", "model", "m", str(target))
    refused = second.finish()
    network.flow()
    assert refused.code == 1
    assert "another firectl is downloading" in refused.err
    assert first.finish().code == 0
    assert same(model, target)


def test_a_folder_that_cannot_be_written_is_told_plainly(firectl, tmp_path):
    (tmp_path / "file").write_text("x")
    ran = firectl("download", "model", "m", str(tmp_path / "file" / "folder"))
    assert ran.code == 1
    assert "is a file; name a folder to put the files in" in ran.err
    assert "Traceback" not in ran.err
