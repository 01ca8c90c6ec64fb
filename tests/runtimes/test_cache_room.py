"""Room in a node's cache: pulls from a real object store, for processes that live, die and are killed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from controlplane.config import Settings
from controlplane.content_hash import content_sha256
from controlplane.storage import ObjectStore
from workers.runtimes import cache_room, cache_uses
from workers.runtimes.base import ModelFile
from workers.runtimes.cache_uses import Keeper, end_uses, hold, note_use
from workers.runtimes.node_cache import StagingError, stage_adapter, stage_model
from workers.runtimes.node_settings import node_environment

SIZE = 300_000
Until = Callable[..., None]
LIVING = """
import os, sys
from pathlib import Path
from workers.runtimes.cache_uses import hold
hold(Path(sys.argv[1]), sys.argv[2])
os.execv("/bin/sh", ["sh", "-c", "echo lives; exec sleep 600"])
"""
HALF_WAY = """
import sys, time
from pathlib import Path
from controlplane.storage import ObjectStore
from workers.runtimes.base import ModelFile
from workers.runtimes.cache_uses import Keeper
from workers.runtimes.node_cache import stage_model
from workers.runtimes.node_settings import node_settings

class Slow:
    def open_stream(self, key):
        chunks = ObjectStore.from_settings(node_settings()).open_stream(key)
        if not key.endswith("2"):
            yield from chunks
            return
        yield next(chunks)[:1000]
        print("half way", flush=True)
        time.sleep(600)

files = [ModelFile(name, int(size), sha) for name, size, sha in (each.split(":") for each in sys.argv[3:])]
stage_model(Slow(), sys.argv[2], files, Path(sys.argv[1]), keeper=Keeper("slow"))
"""


class Stored(NamedTuple):
    prefix: str
    files: list[ModelFile]

    @property
    def folder(self) -> str:
        return content_sha256({file.name: file.sha256 for file in self.files})

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@pytest.fixture
def stored(object_store: ObjectStore) -> Callable[..., Stored]:
    """Another model of two files in the object store."""

    def store(size: int = SIZE) -> Stored:
        prefix, files = f"accounts/a/models/{uuid.uuid4()}/", []
        for number in (1, 2):
            data = os.urandom(size // 2)
            object_store.put_bytes(f"{prefix}file-{number}", data)
            files.append(ModelFile(f"file-{number}", len(data), hashlib.sha256(data).hexdigest()))
        return Stored(prefix, files)

    return store


@pytest.fixture
def pull(object_store: ObjectStore, tmp_path: Path) -> Callable[..., Path]:
    def pull(model: Stored, limit: int | None = None, holder: str = "somebody") -> Path:
        return stage_model(object_store, model.prefix, model.files, tmp_path, keeper=Keeper(holder, limit))

    return pull


@pytest.fixture
def node(settings: Settings) -> dict[str, str]:
    """The environment of what runs on a node."""
    return node_environment(settings, os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept for those who are yet to come."""
    monkeypatch.setattr(cache_uses, "PROMISE_SECONDS", 0.0)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """One who holds what is used as `engine`, and then became another program."""
    argv = [sys.executable, "-c", LIVING, str(tmp_path), "engine"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "lives\n"
        yield process
        process.kill()


def names(cache: Path, kind: str = "models") -> set[str]:
    return {folder.name for folder in (cache / kind).glob("*")}


def age(folder: Path, seconds: float) -> None:
    os.utime(folder, (time.time() - seconds,) * 2)


@pytest.mark.usefixtures("impatient")
def test_what_was_used_longest_ago_makes_way(
    stored: Callable[..., Stored], pull: Callable[..., Path], tmp_path: Path
) -> None:
    first, second, third = stored(), stored(), stored()
    age(pull(first), 300)
    age(pull(second), 200)
    age(pull(first), 100)  # used again
    pull(third, limit=2 * SIZE)
    assert names(tmp_path) == {first.folder, third.folder}


@pytest.mark.usefixtures("impatient")
def test_what_an_engine_uses_stays_until_it_is_killed(
    stored: Callable[..., Stored], pull: Callable[..., Path], tmp_path: Path, engine: subprocess.Popen[str]
) -> None:
    served, other = stored(), stored()
    age(pull(served, holder="engine"), 3600)
    with pytest.raises(StagingError) as full:
        pull(other, limit=SIZE)
    assert (full.value.code, full.value.reason, full.value.retryable) == (
        "RESOURCE_EXHAUSTED",
        "DISK_FULL",
        True,
    )
    assert full.value.message == (
        f"the node's cache is full: of the {SIZE} bytes that it may hold {SIZE} are in use, "
        f"and the files need {SIZE}"
    )
    assert names(tmp_path) == {served.folder}
    engine.kill()
    engine.wait()
    pull(other, limit=SIZE)
    assert names(tmp_path) == {other.folder}
    assert list((tmp_path / "staging").iterdir()) == []


def test_what_could_never_fit_is_not_tried_again(
    stored: Callable[..., Stored], pull: Callable[..., Path]
) -> None:
    with pytest.raises(StagingError, match="the node's cache is full") as full:
        pull(stored(), limit=SIZE - 1)
    assert not full.value.retryable


def test_what_was_just_brought_is_kept_for_an_engine_that_is_yet_to_start(
    stored: Callable[..., Stored], pull: Callable[..., Path], tmp_path: Path
) -> None:
    coming = stored()
    pull(coming, holder="coming")
    with pytest.raises(StagingError, match="is full"):
        pull(stored(), limit=SIZE)
    age(tmp_path / "uses" / coming.folder / "coming", 2 * cache_uses.PROMISE_SECONDS)
    pull(stored(), limit=SIZE)
    assert coming.folder not in names(tmp_path)


@pytest.mark.usefixtures("impatient")
def test_an_addon_stays_as_long_as_the_engine_has_it(
    object_store: ObjectStore,
    stored: Callable[..., Stored],
    pull: Callable[..., Path],
    tmp_path: Path,
    engine: subprocess.Popen[str],
) -> None:
    addon = stored()
    keeper = Keeper("engine", SIZE)
    folder = stage_adapter(object_store, addon.prefix, addon.files, tmp_path, keeper=keeper)
    end_uses(tmp_path, "engine", but={folder.name})
    with pytest.raises(StagingError, match="is full"):
        pull(stored(), limit=SIZE)
    end_uses(tmp_path, "engine", but=())
    pull(stored(), limit=SIZE)
    assert names(tmp_path, "adapters") == set()


def test_two_at_once_where_there_is_room_for_one_do_not_take_more_than_there_is(
    stored: Callable[..., Stored], pull: Callable[..., Path], tmp_path: Path
) -> None:
    refused: list[str] = []

    def try_to_pull(model: Stored) -> None:
        try:
            pull(model, limit=SIZE)
        except StagingError as error:
            refused.append(error.reason)

    threads = [threading.Thread(target=try_to_pull, args=(stored(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["DISK_FULL"]
    assert len(names(tmp_path)) == 1


@pytest.mark.usefixtures("impatient")
def test_a_pull_that_is_killed_half_way_leaves_nothing_that_counts_as_whole_and_is_gone_on_with(
    stored: Callable[..., Stored],
    pull: Callable[..., Path],
    object_store: ObjectStore,
    node: dict[str, str],
    tmp_path: Path,
    until: Until,
) -> None:
    model = stored()
    files = [f"{file.name}:{file.size}:{file.sha256}" for file in model.files]
    argv = [sys.executable, "-c", HALF_WAY, str(tmp_path), model.prefix, *files]
    with subprocess.Popen(argv, env=node, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "half way\n"
        assert measured(tmp_path) == model.size, "what is still to come is spoken for"
        (first,) = tmp_path.glob("staging/*/file-1")
        until(lambda: sha(first) == model.files[0].sha256)
        process.kill()
    assert names(tmp_path) == set()
    object_store.delete(f"{model.prefix}file-1")  # it was whole, so nobody asks for it again
    whole = pull(model)
    assert [sha(whole / file.name) for file in model.files] == [file.sha256 for file in model.files]
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.usefixtures("impatient")
def test_what_a_killed_pull_left_behind_makes_way_first(
    stored: Callable[..., Stored], pull: Callable[..., Path], tmp_path: Path
) -> None:
    kept, left = stored(), tmp_path / "staging" / f"{uuid.uuid4()}-0"
    pull(kept)
    left.mkdir(parents=True)
    (left / "file").write_bytes(b"x" * SIZE)
    new = stored()
    pull(new, limit=2 * SIZE)
    assert names(tmp_path) == {kept.folder, new.folder}
    assert not left.exists()


def test_a_file_that_was_damaged_is_pulled_again_and_the_others_are_not(
    stored: Callable[..., Stored], pull: Callable[..., Path], object_store: ObjectStore
) -> None:
    model = stored()
    folder = pull(model, limit=SIZE)
    with open(folder / "file-2", "r+b") as file:
        file.write(b"damaged")
    object_store.delete(f"{model.prefix}file-1")
    assert pull(model, limit=SIZE) == folder
    assert sha(folder / "file-2") == model.files[1].sha256


@pytest.mark.usefixtures("impatient")
def test_without_a_limit_a_tenth_of_the_disk_stays_free_if_what_is_unused_suffices(
    stored: Callable[..., Stored],
    pull: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = 100 * cache_room.SPARE_BYTES

    def usage(_: Path) -> object:
        """Of a disk that has nothing but the cache, and just too little room for another model."""
        held = sum(len(names(tmp_path, kind)) for kind in ("models", "adapters")) * SIZE
        return SimpleNamespace(total=disk, free=disk // 10 + 2 * SIZE - held)

    monkeypatch.setattr(cache_room.shutil, "disk_usage", usage)
    first, second, third = stored(), stored(), stored()
    age(pull(first), 200)
    age(pull(second), 100)
    pull(third)
    assert names(tmp_path) == {second.folder, third.folder}
    hold(tmp_path, "everybody")
    for folder in (second.folder, third.folder):
        note_use(tmp_path, folder, "everybody")
    pull(first)
    assert names(tmp_path) == {first.folder, second.folder, third.folder}, "it is a wish, and no limit"


def measured(cache: Path) -> int:
    return cache_room.measure(cache, None).held


def sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
