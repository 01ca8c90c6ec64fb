"""What is seen of a cluster, over an API server that a test plays."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from kubernetes.client import ApiClient, Configuration
from urllib3.util.connection import create_connection

from workers.runtimes.base import RuntimeUnavailable
from workers.runtimes.kubernetes.cluster import DEPLOYMENT, KEEP_ALIVE, Cluster, Gone, Kind, socket_options
from workers.runtimes.kubernetes.view import STALE_SECONDS, View, is_news

Until = Callable[..., None]
NAMELESS = {"name": "other", "namespace": "n", "resourceVersion": "13"}
TOO_OLD = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}


@dataclass
class ApiStandIn:
    events: queue.Queue[Any] = field(default_factory=queue.Queue)
    is_known: bool = True
    lists: int = 0
    watches: int = 0
    listed: list[Any] = field(default_factory=list)

    def kind(self, name: str) -> Kind:
        return DEPLOYMENT

    def list(self, kind: Kind, query: Mapping[str, str]) -> Any:
        self.lists += 1
        if not self.is_known:
            raise Gone(404, "NotFound", "the server could not find the requested resource")
        return {"metadata": {"resourceVersion": "10"}, "items": self.listed}

    def watch(self, kind: Kind, query: Mapping[str, str], seconds: int) -> Iterator[Any]:
        self.watches += 1
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


def test_changes_are_told_and_what_we_did_ourselves_is_not(api: ApiStandIn, view: View, until: Until) -> None:
    api.events.put({"type": "ADDED", "object": deployment(11)})
    until(lambda: view.group("Deployment", "one"))
    assert view.take_changed() == {("uid", "one")}
    view.learn(deployment(12))
    api.events.put({"type": "MODIFIED", "object": deployment(12)})
    api.events.put({"type": "ADDED", "object": {**deployment(13), "metadata": NAMELESS}})
    until(lambda: view.get("Deployment", ("n", "other")))
    assert view.take_changed() == set()
    api.events.put({"type": "DELETED", "object": deployment(14)})
    until(lambda: not view.group("Deployment", "one"))
    assert view.take_changed() == {("uid", "one")}


def test_what_changed_while_the_watch_was_too_far_behind_is_told_from_the_list(
    api: ApiStandIn, view: View, until: Until
) -> None:
    api.events.put({"type": "ADDED", "object": deployment(11)})
    until(lambda: view.take_changed() == {("uid", "one")})
    api.listed = [deployment(15)]
    api.events.put(TOO_OLD)
    until(lambda: view.take_changed() == {("uid", "one")})
    api.listed = []
    api.events.put(TOO_OLD)
    until(lambda: view.take_changed() == {("uid", "one")})
    assert view.group("Deployment", "one") == []


def test_a_server_that_forgets_at_once_or_ends_every_watch_is_asked_ever_more_seldom(
    api: ApiStandIn, view: View, until: Until
) -> None:
    until(lambda: api.watches == 1)
    for event in (TOO_OLD, None, TOO_OLD, None, *[TOO_OLD] * 20):
        api.events.put(event)
    until(lambda: api.watches >= 3)
    threading.Event().wait(0.3)  # long enough for thousands
    assert api.watches <= 4


def test_a_status_is_news_only_of_what_acts(view: View) -> None:
    quota = {"kind": "ResourceQuota", "metadata": {"name": "q", "resourceVersion": "1"}, "spec": {}}
    fuller = {**quota, "metadata": {"name": "q", "resourceVersion": "2"}, "status": {"used": {"pods": "1"}}}
    assert not is_news(quota, fuller)
    assert is_news(quota, {**fuller, "spec": {"hard": {"pods": "9"}}})
    assert is_news({**quota, "kind": "Pod"}, {**fuller, "kind": "Pod"})
    assert is_news(quota, None)


def test_a_machine_that_is_gone_is_noticed_before_what_was_seen_of_it_is_too_old() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = create_connection(server.getsockname(), socket_options=socket_options())
    with made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, between, probes = (made.getsockopt(socket.IPPROTO_TCP, option) for option in KEEP_ALIVE)
    assert idle + between * probes < STALE_SECONDS


def test_a_handshake_that_breaks_off_is_an_absent_server_and_no_error_of_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def break_off() -> None:
            server.accept()[0].close()

        threading.Thread(target=break_off, daemon=True).start()
        settings = type.__call__(Configuration)
        settings.host, settings.retries = f"https://127.0.0.1:{server.getsockname()[1]}", False
        cluster = Cluster(ApiClient(settings))
        with pytest.raises(RuntimeUnavailable, match="does not answer"):
            cluster.get_path("/api")
        cluster.close()
