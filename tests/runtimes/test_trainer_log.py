"""Reading a log by byte from a cluster that gives it by second. The cluster is a stand-in with a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from workers.runtimes.base import RuntimeUnavailable
from workers.runtimes.kubernetes import trainer_log
from workers.runtimes.kubernetes.trainer_log import TrainerLogs

POD = {"metadata": {"uid": "one", "namespace": "n", "name": "p"}}
LINES = [
    (f"2026-01-01T00:{second // 60:02}:{second % 60:02}", b"x" * (second % 7) + b"\n")
    for second in range(500)
]
WHOLE = b"".join(line for _, line in LINES)


class ClusterStandIn:
    def __init__(self) -> None:
        self.given: list[int] = []
        """How many bytes were read for each request."""
        self.is_away = False

    @contextmanager
    def open_log(self, namespace: str, pod: str, query: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        if self.is_away:
            raise RuntimeUnavailable("the node does not answer")
        since = query.get("sinceTime", "")
        self.given.append(0)
        yield self._chunks([(at, line) for at, line in LINES if f"{at}+00:00" >= since])

    def _chunks(self, lines: list[tuple[str, bytes]]) -> Iterator[bytes]:
        said = b"".join(f"{at}.123456789+00:00 ".encode() + line for at, line in lines)
        for start in range(0, len(said), 100):
            self.given[-1] += 100
            yield said[start : start + 100]


@pytest.fixture
def cluster() -> ClusterStandIn:
    return ClusterStandIn()


def read(logs: TrainerLogs, cluster: Any, start: int, length: int, *, ended: bool = True) -> bytes:
    first, found = logs.read(cluster, POD, start, length, ended=ended)
    assert first == start
    return found


@pytest.mark.parametrize("length", [1, 10, 1000, 10_000])
def test_every_byte_is_found_at_its_place(cluster: ClusterStandIn, length: int) -> None:
    for start in (0, 1, 77, 500, len(WHOLE) - 3, len(WHOLE), len(WHOLE) + 5):
        assert read(TrainerLogs(), cluster, start, length) == WHOLE[start : start + length]


def test_another_worker_comes_to_the_same_bytes_and_what_was_read_is_not_read_again(
    cluster: ClusterStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_log, "MARK_BYTES", 100)
    one, other = TrainerLogs(), TrainerLogs()
    parts = [read(one, cluster, start, 400) for start in range(0, len(WHOLE), 400)]
    assert b"".join(parts) == WHOLE
    last = cluster.given[-1]
    assert read(other, cluster, 1600, 400) == WHOLE[1600:]
    assert last < cluster.given[-1] / 2


def test_a_running_trainer_is_not_asked_at_every_look(cluster: ClusterStandIn) -> None:
    logs = TrainerLogs()
    assert read(logs, cluster, 0, 10, ended=False) == WHOLE[:10]
    assert read(logs, cluster, 10, 10, ended=False) == b""
    assert read(logs, cluster, 10, 10) == WHOLE[10:20]
    assert len(cluster.given) == 2


def test_a_log_that_cannot_be_had_is_empty_for_now(cluster: ClusterStandIn) -> None:
    cluster.is_away = True
    assert read(TrainerLogs(), cluster, 0, 10) == b""
