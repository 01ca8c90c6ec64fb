"""Checkpoints in the object store: whole or not there, and the newest good one is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.storage import ObjectStore
from workers.training.running.checkpoints import JobState, list_checkpoints, restore_newest, upload_checkpoint

PREFIX = "accounts/acme/fine-tuning-jobs/77/"


@pytest.fixture
def checkpointed(object_store: ObjectStore, tmp_path: Path) -> Callable[[int], None]:
    """Uploads a checkpoint of a step, as the trainer leaves one."""

    def save(step: int) -> None:
        folder = tmp_path / f"local-{step}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"weights of %d" % step)
        (folder / "optimizer.pt").write_bytes(b"optimizer of %d" % step)
        (folder / "tokenizer.json").write_text("not needed to resume")
        for rank in range(2):
            (folder / f"rng_state_{rank}.pth").write_bytes(b"dice of %d" % rank)
        JobState(tokens_seen=step * 10).write(folder)
        upload_checkpoint(object_store, PREFIX, folder, step)

    return save


def key(step: int, name: str) -> str:
    return f"{PREFIX}checkpoints/checkpoint-{step}/{name}"


def rewrite_manifest(store: ObjectStore, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads(store.get_bytes(key(10, "manifest.json")))
    change(manifest["files"])
    store.put_bytes(key(10, "manifest.json"), json.dumps(manifest).encode())


def flip_a_bit(store: ObjectStore, name: str) -> None:
    content = bytearray(store.get_bytes(name))
    content[len(content) // 2] ^= 1
    store.put_bytes(name, bytes(content))


def restored_step(store: ObjectStore, target: Path) -> int | None:
    found = restore_newest(store, PREFIX, target)
    return found[1] if found else None


def test_the_last_two_are_kept(object_store: ObjectStore, checkpointed: Callable[[int], None]) -> None:
    for step in (2, 10, 9, 11):
        checkpointed(step)

    assert list_checkpoints(object_store, PREFIX) == [11, 10]
    assert not list(object_store.list(key(2, "")))


def test_the_newest_comes_back_as_it_was(
    object_store: ObjectStore, checkpointed: Callable[[int], None], tmp_path: Path
) -> None:
    checkpointed(5)
    checkpointed(10)

    found = restore_newest(object_store, PREFIX, tmp_path / "target")

    assert found is not None
    folder, step = found
    assert (folder.name, step) == ("checkpoint-10", 10)
    assert (folder / "optimizer.pt").read_bytes() == b"optimizer of 10"
    assert [(folder / f"rng_state_{rank}.pth").read_bytes() for rank in range(2)] == [
        b"dice of 0",
        b"dice of 1",
    ]
    assert not (folder / "tokenizer.json").exists()
    assert JobState.read(folder).tokens_seen == 100


def test_without_checkpoints_there_is_nothing_to_restore(object_store: ObjectStore, tmp_path: Path) -> None:
    assert restore_newest(object_store, PREFIX, tmp_path) is None
    assert JobState.read(None) == JobState()


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: store.put_bytes(key(10, "optimizer.pt"), b"optimizer of 1o"),
        lambda store: store.put_bytes(key(10, "optimizer.pt"), b"optimi"),
        lambda store: store.delete(key(10, "optimizer.pt")),
        lambda store: store.delete(key(10, "manifest.json")),
        lambda store: store.put_bytes(key(10, "manifest.json"), b'{"files": {"optim'),
        lambda store: store.put_bytes(key(10, "manifest.json"), b'{"files": {}}'),
        lambda store: rewrite_manifest(store, lambda files: files.pop("optimizer.pt")),
        lambda store: rewrite_manifest(store, lambda files: files.update({"../x": files["optimizer.pt"]})),
        lambda store: flip_a_bit(store, key(10, "adapter_model.safetensors")),
    ],
    ids=[
        "changed",
        "cut",
        "file gone",
        "manifest gone",
        "manifest cut",
        "manifest empty",
        "manifest lacks a file",
        "manifest climbs",
        "one bit",
    ],
)
def test_a_damaged_newest_falls_back_to_the_one_before(
    object_store: ObjectStore,
    checkpointed: Callable[[int], None],
    tmp_path: Path,
    damage: Callable[[ObjectStore], None],
) -> None:
    checkpointed(5)
    checkpointed(10)
    damage(object_store)

    assert restored_step(object_store, tmp_path / "target") == 5
    assert list_checkpoints(object_store, PREFIX) == [5]
    assert not list(object_store.list(key(10, "")))


def test_when_all_are_damaged_training_begins_anew(
    object_store: ObjectStore, checkpointed: Callable[[int], None], tmp_path: Path
) -> None:
    for step in (5, 10):
        checkpointed(step)
        flip_a_bit(object_store, key(step, "optimizer.pt"))
    assert restored_step(object_store, tmp_path / "target") is None
    assert not list(object_store.list(f"{PREFIX}checkpoints/"))
