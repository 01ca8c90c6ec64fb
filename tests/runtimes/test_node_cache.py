"""Staging weights. The store is a stand-in over a dictionary, so that it can be made to fail."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.content_hash import content_sha256
from controlplane.storage import ObjectNotFound, StorageUnavailable
from workers.runtimes import node_cache
from workers.runtimes.base import ModelFile
from workers.runtimes.node_cache import StagingError, stage_adapter, stage_model

UID = "0f" * 16
PREFIX = f"accounts/a/models/{UID}/"
CONTENT = {"config.json": b"{}", "model.safetensors": b"w" * 3_000_000}
FOLDER = content_sha256({name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()})


class DictionaryStore:
    """What staging needs of an ObjectStore."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.objects = {PREFIX + name: data for name, data in content.items()}
        self.reads: list[str] = []
        self.gate: threading.Event | None = None

    def open_stream(self, key: str) -> Iterator[bytes]:
        self.reads.append(key)
        if key not in self.objects:
            raise ObjectNotFound(key)
        return self._chunks(self.objects[key])

    def _chunks(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), 100_000):
            if self.gate is not None:
                self.gate.wait()
            yield data[start : start + 100_000]


def listed(content: dict[str, bytes]) -> list[ModelFile]:
    return [ModelFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in content.items()]


@pytest.fixture
def store() -> DictionaryStore:
    return DictionaryStore(CONTENT)


def staging_folders(cache: Path) -> list[Path]:
    return list((cache / "staging").glob("*"))


def refusal(store: DictionaryStore, files: list[ModelFile], cache: Path) -> StagingError:
    with pytest.raises(StagingError) as caught:
        stage_model(store, PREFIX, files, cache, UID)
    assert not list((cache / "models").glob("*"))
    assert staging_folders(cache) == []
    return caught.value


def test_files_are_staged_once_under_the_hash_of_them_all(store: DictionaryStore, tmp_path: Path) -> None:
    path = stage_model(store, PREFIX, listed(CONTENT), tmp_path, UID)
    assert path == tmp_path / "models" / FOLDER
    assert {file.name: file.read_bytes() for file in path.iterdir()} == CONTENT
    assert stage_model(store, PREFIX, listed(CONTENT), tmp_path) == path
    assert len(store.reads) == len(CONTENT)
    assert staging_folders(tmp_path) == []


def test_another_account_s_copy_of_a_model_is_not_fetched_again(
    store: DictionaryStore, tmp_path: Path
) -> None:
    first = stage_model(store, PREFIX, listed(CONTENT), tmp_path, UID)
    store.objects.clear()
    theirs = f"accounts/b/models/{'1e' * 16}/"
    assert stage_model(store, theirs, listed(CONTENT), tmp_path) == first


def test_models_of_unknown_checksums_are_kept_apart_by_their_uids(
    store: DictionaryStore, tmp_path: Path
) -> None:
    unknown = [replace(file, sha256="") for file in listed(CONTENT)]
    assert stage_model(store, PREFIX, unknown, tmp_path) == tmp_path / "models" / UID
    theirs = f"accounts/b/models/{'1e' * 16}/"
    with pytest.raises(StagingError, match="is missing"):
        stage_model(store, theirs, unknown, tmp_path)


def test_two_that_stage_at_once_download_once(store: DictionaryStore, tmp_path: Path) -> None:
    store.gate = threading.Event()
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(stage_model(store, PREFIX, listed(CONTENT), tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert not list((tmp_path / "models").glob("*")), "what is not whole is not there"
    store.gate.set()
    for thread in threads:
        thread.join()
    assert paths == [tmp_path / "models" / FOLDER] * 4
    assert len(store.reads) == len(CONTENT)


def test_a_missing_object_is_named(store: DictionaryStore, tmp_path: Path) -> None:
    del store.objects[PREFIX + "config.json"]
    error = refusal(store, listed(CONTENT), tmp_path)
    assert (error.code, error.reason, error.retryable) == ("NOT_FOUND", "FILE_MISSING", False)
    assert "config.json" in error.message


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"v" + b"w" * 2_999_999, "CHECKSUM_MISMATCH"),
        (b"w" * 2_999_999, "SIZE_MISMATCH"),
        (b"w" * 9_000_000, "SIZE_MISMATCH"),
    ],
)
def test_other_bytes_than_registered_are_refused(
    store: DictionaryStore, tmp_path: Path, stored: bytes, reason: str
) -> None:
    store.objects[PREFIX + "model.safetensors"] = stored
    error = refusal(store, listed(CONTENT), tmp_path)
    assert (error.code, error.reason) == ("DATA_LOSS", reason)
    assert "model.safetensors" in error.message


def test_without_a_known_checksum_the_size_counts(store: DictionaryStore, tmp_path: Path) -> None:
    files = [ModelFile(file.name, file.size, "") for file in listed(CONTENT)]
    assert stage_model(store, PREFIX, files, tmp_path, UID).is_dir()


def test_an_unreachable_store_is_worth_another_try(store: DictionaryStore, tmp_path: Path) -> None:
    def fail(key: str) -> Iterator[bytes]:
        raise StorageUnavailable("no answer")

    store.open_stream = fail  # type: ignore[method-assign]
    error = refusal(store, listed(CONTENT), tmp_path)
    assert (error.code, error.retryable) == ("UNAVAILABLE", True)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "", "a\x00b", "a\nb", "x" * 201, "a b"])
def test_names_that_could_leave_the_folder_are_refused(
    store: DictionaryStore, tmp_path: Path, name: str
) -> None:
    error = refusal(store, [ModelFile(name, 1, "")], tmp_path)
    assert error.reason == "BAD_FILE_NAME"
    assert store.reads == []


def test_a_uid_is_no_path(store: DictionaryStore, tmp_path: Path) -> None:
    for uid in ("..", "a/..", ""):
        with pytest.raises(StagingError, match="no uid"):
            stage_model(store, "accounts/a/models/..", [ModelFile("config.json", 2, "")], tmp_path, uid)


def test_what_a_crash_left_behind_is_cleaned_up(store: DictionaryStore, tmp_path: Path) -> None:
    left = tmp_path / "staging" / f"{FOLDER}-dead"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    stage_model(store, PREFIX, listed(CONTENT), tmp_path, UID)
    assert staging_folders(tmp_path) == []


def test_a_file_lost_from_the_cache_is_staged_again(store: DictionaryStore, tmp_path: Path) -> None:
    path = stage_model(store, PREFIX, listed(CONTENT), tmp_path, UID)
    (path / "config.json").unlink()
    stage_model(store, PREFIX, listed(CONTENT), tmp_path, UID)
    assert (path / "config.json").read_bytes() == b"{}"


def test_a_disk_too_small_says_how_much_is_missing(store: DictionaryStore, tmp_path: Path) -> None:
    huge = ModelFile("model.safetensors", 1 << 60, "")
    error = refusal(store, [huge], tmp_path)
    assert (error.code, error.reason, error.retryable) == ("RESOURCE_EXHAUSTED", "DISK_FULL", True)
    assert f"need {1 << 60} bytes" in error.message
    assert "bytes are free" in error.message
    assert store.reads == []


def test_a_disk_that_fills_up_on_the_way_says_so_too(
    store: DictionaryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(node_cache.os, "fsync", full)
    assert refusal(store, listed(CONTENT), tmp_path).reason == "DISK_FULL"


def test_an_adapter_with_other_content_has_another_path(store: DictionaryStore, tmp_path: Path) -> None:
    first = stage_adapter(store, PREFIX, listed(CONTENT), tmp_path, UID)
    assert stage_adapter(store, PREFIX, listed(CONTENT), tmp_path, UID) == first
    changed = CONTENT | {"config.json": b"[]"}
    second = stage_adapter(DictionaryStore(changed), PREFIX, listed(changed), tmp_path, UID)
    assert first != second
    assert first.parent == second.parent == tmp_path / "adapters"


def test_what_was_written_to_since_it_was_staged_is_checked_and_kept(
    store: DictionaryStore, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / FOLDER
    folder.mkdir(parents=True)
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)
    assert stage_model(store, PREFIX, listed(CONTENT), tmp_path, UID) == folder
    assert store.reads == []


def test_files_that_are_not_the_model_s_do_not_stay_beside_what_is_mended(
    store: DictionaryStore, tmp_path: Path
) -> None:
    path = stage_model(store, PREFIX, listed(CONTENT), tmp_path, UID)
    (path / "more.json").write_bytes(b"{}")
    os.utime(path / "config.json")
    assert stage_model(store, PREFIX, listed(CONTENT), tmp_path, UID) == path
    assert {file.name for file in path.iterdir()} == CONTENT.keys()
