"""An API server that is away, has enough of us or forgets: it is asked in no hurry, and nothing is missed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest

from controlplane.db import now
from tests.kubernetes.road import Road
from tests.kubernetes.story import LOOK_SECONDS, SECONDS, Kubectl, Story
from workers.reconcile.deployments import bring_on_deployment
from workers.runtimes.kubernetes import KubernetesFleets
from workers.watch import tell_news

pytestmark = pytest.mark.kubernetes

Deploy = Callable[..., Story]
ENOUGH = json.dumps({"kind": "Status", "message": "too many requests, please try again later"}).encode()


class TooMany:
    status = 429

    def read(self) -> bytes:
        return ENOUGH


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[uuid.UUID]:
    """Who was told to be looked at."""
    told: list[uuid.UUID] = []
    monkeypatch.setattr("workers.watch.enqueue", lambda settings, task, uid: told.append(uid))
    return told


def follow(
    story: Story, fleets: KubernetesFleets, told: list[uuid.UUID], until: Callable[[], object]
) -> None:
    """As workers do between sweeps: rounds only over what the cluster has told of."""
    deadline = time.monotonic() + SECONDS
    while not until():
        assert time.monotonic() < deadline, f"{story.row().state} {story.row().status_message}"
        tell_news(story.context, fleets.take_news())
        while told:
            bring_on_deployment(story.context, told.pop())
        time.sleep(LOOK_SECONDS)


def test_a_server_that_has_enough_of_us_is_asked_once_a_look_and_ever_more_seldom(
    deploy: Deploy, fleets: KubernetesFleets
) -> None:
    story = deploy()
    cluster, asked = fleets._sites.of("").cluster, []
    assert fleets.known() == frozenset()  # so that it is seen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "_send", lambda method, *rest: asked.append(method) or TooMany())
        for _ in range(3):
            row = story.round()
    assert (row.state, row.reason) == ("CREATING", "CLUSTER_UNAVAILABLE")
    assert "answered 429: too many requests" in row.status_message
    assert len([method for method in asked if method != "GET"]) <= 3  # watches GET, at their own pace
    assert row.next_reconcile_at - now() > timedelta(seconds=20)
    story.until_ready()
    assert len(story.pods()) == 1


def test_after_a_long_outage_deployments_are_looked_at_as_soon_as_the_server_is_back(
    deploy: Deploy, fleets: KubernetesFleets, road: Road, told: list[uuid.UUID]
) -> None:
    story = deploy()
    story.until_ready()
    road.cut()
    story.change(state="UPDATING", desired_replica_count=2)
    story.until(lambda row: row.reason == "CLUSTER_UNAVAILABLE")
    assert story.round().next_reconcile_at - now() > timedelta(seconds=20)
    fleets.take_news()
    road.mend()
    follow(story, fleets, told, lambda: story.deployment()["spec"]["replicas"] == 2)


def test_what_is_taken_away_while_nothing_can_be_seen_is_put_back_as_soon_as_it_can(
    deploy: Deploy, fleets: KubernetesFleets, road: Road, kubectl: Kubectl, told: list[uuid.UUID]
) -> None:
    story = deploy()
    story.until_ready()
    road.cut()
    kubectl("delete", "service", story.name(), "-n", story.namespace)
    road.mend()
    follow(story, fleets, told, lambda: "Service" in story.objects())


def test_what_all_deployments_of_an_account_share_is_put_back_at_once(
    deploy: Deploy, fleets: KubernetesFleets, kubectl: Kubectl, told: list[uuid.UUID]
) -> None:
    stories = [deploy(), deploy("other")]
    for story in stories:
        story.change(desired_replica_count=0)
        story.until_ready()
    kubectl("delete", "networkpolicy", "account", "-n", story.namespace)
    follow(story, fleets, told, lambda: kubectl.get("networkpolicy", story.namespace))
