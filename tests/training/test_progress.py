"""progress.json and metrics.jsonl, with a dictionary in place of the object store, which can go away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.storage import ObjectNotFound, StorageUnavailable
from workers.training.outcome.result import outlast_outages
from workers.training.running.progress import ProgressReport


class DictionaryStore:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.writes: list[str] = []
        self.away = False

    def put_bytes(self, key: str, data: bytes) -> None:
        if self.away:
            raise StorageUnavailable("no answer")
        self.objects[key] = data
        self.writes.append(key)

    def get_bytes(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectNotFound(key)
        return self.objects[key]

    def progress(self) -> dict[str, object]:
        return json.loads(self.objects.get("job/progress.json", b"{}"))

    def metrics(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.objects["job/metrics.jsonl"].splitlines()]


@pytest.fixture
def store() -> DictionaryStore:
    return DictionaryStore()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def test_the_first_progress_is_written_at_once(store: DictionaryStore) -> None:
    with ProgressReport(store, "job/"):
        until(lambda: store.progress().get("phase") == "STAGING")


def test_only_the_newest_state_is_written(store: DictionaryStore) -> None:
    with ProgressReport(store, "job/", interval=60) as progress:
        until(lambda: bool(store.writes))
        for step in range(1000):
            progress.update(phase="TRAINING", step=step, loss=1.5)

    assert len(store.writes) == 2
    assert store.progress()["step"] == 999
    assert store.progress()["updated_at"]


def test_metrics_go_on_where_the_checkpoint_was(store: DictionaryStore, tmp_path: Path) -> None:
    saved = tmp_path / "metrics.jsonl"
    with ProgressReport(store, "job/", interval=60) as progress:
        progress.add_metrics({"step": 1, "loss": 3})
        progress.save_metrics(saved)
        progress.add_metrics({"step": 2, "loss": 2})

    with ProgressReport(store, "job/", interval=60) as progress:
        progress.resume_metrics(saved)
        progress.add_metrics({"step": 2, "loss": 1})

    assert store.metrics() == [{"step": 1, "loss": 3}, {"step": 2, "loss": 1}]


def test_an_absent_store_holds_nothing_up_and_is_told_later(store: DictionaryStore) -> None:
    store.away = True
    with ProgressReport(store, "job/", interval=0) as progress:
        progress.update(step=7)
        progress.add_metrics({"step": 7})
        store.away = False
        until(lambda: store.progress().get("step") == 7)

    assert store.metrics() == [{"step": 7}]


def test_the_last_writes_outlast_an_outage(store: DictionaryStore) -> None:
    tried: list[int] = []

    def write() -> None:
        tried.append(1)
        store.away = len(tried) < 3
        store.put_bytes("result", b"")

    outlast_outages(write, tries=5, pause=0)

    assert len(tried) == 3
    store.away = True
    with pytest.raises(StorageUnavailable):
        outlast_outages(lambda: store.put_bytes("result", b""), tries=2, pause=0)
