"""What is seen of a cluster, over an API server that a test plays."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from workers.runtimes.kubernetes.cluster import DEPLOYMENT, Gone, Kind
from workers.runtimes.kubernetes.view import View

Until = Callable[..., None]


@dataclass
class ApiStandIn:
    events: queue.Queue[Any] = field(default_factory=queue.Queue)
    is_known: bool = True
    lists: int = 0

    def kind(self, name: str) -> Kind:
        return DEPLOYMENT

    def list(self, kind: Kind, query: Mapping[str, str]) -> Any:
        self.lists += 1
        if not self.is_known:
            raise Gone(404, "NotFound", "the server could not find the requested resource")
        return {"metadata": {"resourceVersion": "10"}, "items": []}

    def watch(self, kind: Kind, query: Mapping[str, str], seconds: int) -> Iterator[Any]:
        while event := self.events.get():
            yield event


def deployment(version: int) -> Any:
    labels = {"uid": "one"}
    metadata = {"name": "d", "namespace": "n", "labels": labels, "resourceVersion": str(version)}
    return {"kind": "Deployment", "metadata": metadata}


@pytest.fixture
def api() -> ApiStandIn:
    return ApiStandIn()


@pytest.fixture
def view(api: ApiStandIn) -> Iterator[View]:
    view = View(api, ("Deployment",), "", "uid")  # type: ignore[arg-type]
    yield view
    view.close()
    api.events.put(None)


def test_what_was_deleted_before_its_making_was_answered_is_not_seen_again(
    api: ApiStandIn, view: View, until: Until
) -> None:
    api.events.put({"type": "ADDED", "object": deployment(11)})
    until(lambda: view.group("Deployment", "one"))
    api.events.put({"type": "DELETED", "object": deployment(12)})
    until(lambda: not view.group("Deployment", "one"))
    view.learn(deployment(11))
    assert view.group("Deployment", "one") == []
    view.learn(deployment(13))
    assert view.group("Deployment", "one") == [deployment(13)]


def test_a_kind_that_the_cluster_does_not_know_is_not_asked_for_without_a_pause(until: Until) -> None:
    api = ApiStandIn(is_known=False)
    view = View(api, ("Deployment",), "", "uid")  # type: ignore[arg-type]
    until(lambda: api.lists > 0)
    threading.Event().wait(0.3)  # long enough for thousands
    assert api.lists == 1
    view.close()
