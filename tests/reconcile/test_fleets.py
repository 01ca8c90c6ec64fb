"""Rounds over a deployment whose replicas a cluster keeps, with a stand-in for the cluster."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.db import now
from controlplane.regions import Regions
from tests.reconcile.conftest import DeploymentStory
from workers.reconcile.deployments import stop_strays
from workers.runtimes.base import (
    EngineFailure,
    EnginePhase,
    FleetObservation,
    FleetRefused,
    FleetSpec,
    ProcessState,
    ReplicaObservation,
    RuntimeUnavailable,
)

UP = ReplicaObservation(ProcessState.RUNNING, EnginePhase.SERVING, healthy=True, serving=True, generation=1)
CRASH = EngineFailure("FAILED_PRECONDITION", "BAD_WEIGHTS", "the weights cannot be read")


@dataclass
class ClusterStandIn:
    """Says what a test has it say, and writes down what it is told."""

    replicas: dict[str, ReplicaObservation] = field(default_factory=dict)
    shortage: tuple[str, str] = ("", "")
    refuses: FleetRefused | None = None
    wants_none: FleetRefused | None = None
    """Of what is declared."""
    away: str = ""
    region: str = ""
    declared: list[FleetSpec] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def observe(self, spec: FleetSpec) -> FleetObservation:
        if self.refuses:
            raise self.refuses
        settled = bool(self.declared) and self.declared[-1] == spec
        exists = bool(self.declared)
        return FleetObservation(dict(self.replicas), settled, exists, *self.shortage, region=self.region)

    def remains(self, deployment_uid: str) -> FleetObservation:
        return FleetObservation(dict(self.replicas), exists=bool(self.replicas))

    def declare(self, spec: FleetSpec) -> None:
        if self.away:
            raise RuntimeUnavailable(self.away)
        if self.wants_none:
            raise self.wants_none
        self.declared.append(spec)

    def remove(self, deployment_uid: str) -> None:
        self.removed.append(deployment_uid)

    def note(self, deployment_uid: str, reason: str, message: str, *, warning: bool) -> None:
        self.notes.append(reason)

    def known(self) -> frozenset[str]:
        return frozenset(spec.deployment_uid for spec in self.declared)

    def clear(self, replica_uid: str) -> None: ...

    def say_serving(self, replica_uid: str, serving: bool) -> None: ...

    def prove_base(self, replica_uid: str) -> None: ...


@pytest.fixture
def cluster() -> ClusterStandIn:
    return ClusterStandIn()


@pytest.fixture
def keep(deploy: Callable[..., DeploymentStory], cluster: ClusterStandIn) -> Callable[..., DeploymentStory]:
    """Makes deployments whose replicas the cluster keeps."""

    def make(**values: Any) -> DeploymentStory:
        story = deploy(**values)
        story.context = replace(story.context, fleets=cluster)
        return story

    return make


def serving(story: DeploymentStory, cluster: ClusterStandIn) -> str:
    """A replica that serves; its uid."""
    uid = str(uuid.uuid4())
    cluster.replicas[uid] = UP
    story.round(3)
    assert story.states() == ["READY"]
    return uid


def test_it_is_declared_once_and_followed_to_ready(keep: Any, cluster: ClusterStandIn) -> None:
    story = keep()
    assert story.round().state == "CREATING"
    serving(story, cluster)
    row = story.round()
    assert (row.state, row.status_message, len(cluster.declared)) == ("READY", "", 1)


def test_it_says_which_region_it_is_in_and_keeps_to_its_placement(keep: Any, cluster: ClusterStandIn) -> None:
    story = keep(placement={"multi_region": "US"})
    cluster.region = "US_IOWA_1"
    assert story.round().region == "US_IOWA_1"
    serving(story, cluster)
    assert {spec.regions for spec in cluster.declared} == {Regions(multi_region="US")}
    cluster.region = "US_TEXAS_1"  # where a cheaper pool was added
    assert story.round().region == "US_TEXAS_1"
    cluster.refuses = FleetRefused("NO_NODE_POOL", "no node pool is in US")
    row = story.round()
    assert (row.reason, row.region, story.states()) == ("NO_NODE_POOL", "US_TEXAS_1", ["READY"])
    story.change(state="DELETING")
    cluster.refuses, cluster.replicas = None, {}
    assert story.round().region == "US_TEXAS_1"


def test_what_does_not_fit_fails_with_the_arithmetic_and_leaves_nothing(
    keep: Any, cluster: ClusterStandIn
) -> None:
    cluster.refuses = FleetRefused("DOES_NOT_FIT", "142 GiB and there are 70", "RESOURCE_EXHAUSTED")
    row = keep().round()
    assert (row.state, row.status_code, row.reason) == ("FAILED", "RESOURCE_EXHAUSTED", "DOES_NOT_FIT")
    assert (row.status_message, cluster.declared) == ("142 GiB and there are 70", [])


def test_an_update_that_does_not_fit_leaves_what_serves_and_says_why(
    keep: Any, cluster: ClusterStandIn
) -> None:
    story = keep()
    serving(story, cluster)
    cluster.refuses = FleetRefused("DOES_NOT_FIT", "142 GiB and there are 70")
    story.change(state="UPDATING", generation=2)
    row = story.round()
    assert (row.state, row.reason, story.states()) == ("UPDATING", "DOES_NOT_FIT", ["READY"])
    assert (row.status_message, cluster.removed) == ("142 GiB and there are 70", [])


def test_what_the_cluster_itself_refuses_fails_in_its_words(keep: Any, cluster: ClusterStandIn) -> None:
    cluster.wants_none = FleetRefused("OBJECTS_REFUSED", "the cluster refuses it: spec.nodeSelector is wrong")
    story = keep()
    row = story.round()
    assert (row.state, row.reason) == ("FAILED", "OBJECTS_REFUSED")
    assert row.status_message == "the cluster refuses it: spec.nodeSelector is wrong"
    assert (row.next_reconcile_at, cluster.removed) == (None, [str(story.uid)])


def test_an_update_that_the_cluster_itself_refuses_leaves_what_serves(
    keep: Any, cluster: ClusterStandIn
) -> None:
    story = keep()
    serving(story, cluster)
    cluster.wants_none = FleetRefused("OBJECTS_REFUSED", "the cluster refuses it: too long")
    story.change(state="UPDATING", generation=2)
    row = story.round()
    assert (row.state, row.reason, story.states()) == ("UPDATING", "OBJECTS_REFUSED", ["READY"])
    assert cluster.removed == []


def test_a_cluster_that_makes_fewer_than_wanted_says_why(keep: Any, cluster: ClusterStandIn) -> None:
    story = keep(desired_replica_count=2)
    serving(story, cluster)
    cluster.shortage = ("FailedCreate", "exceeded quota: account")
    row = story.round()
    assert (row.reason, row.status_message) == (
        "FailedCreate",
        "1 of 2 replicas are ready; exceeded quota: account",
    )


def test_a_cluster_that_is_away_is_told_of_and_changes_nothing_else(
    keep: Any, cluster: ClusterStandIn
) -> None:
    story = keep()
    cluster.away = "the API server does not answer"
    row = story.round()
    assert (row.state, row.reason) == ("CREATING", "CLUSTER_UNAVAILABLE")
    cluster.away = ""
    serving(story, cluster)
    assert story.round().reason == ""


def test_a_failure_keeps_its_reason_when_the_cluster_goes_away_with_it(
    keep: Any, cluster: ClusterStandIn
) -> None:
    story = keep()
    for number in range(2):
        uid = str(uuid.uuid4())
        cluster.replicas = {uid: replace(UP, healthy=False, phase=EnginePhase.LOADING)}
        story.round()
        cluster.away = "the API server does not answer" if number else ""
        cluster.replicas = {uid: ReplicaObservation(ProcessState.EXITED, failure=CRASH)}
        story.round()
    row = story.row()
    assert (row.state, row.reason, row.status_message) == (
        "FAILED",
        "BAD_WEIGHTS",
        "the weights cannot be read",
    )
    assert row.next_reconcile_at is not None
    cluster.away, cluster.replicas = "", {}
    story.round()
    assert cluster.declared[-1].replicas == 0


def test_at_zero_it_is_looked_at_now_and_then(keep: Any, cluster: ClusterStandIn) -> None:
    story = keep(desired_replica_count=0)
    row = story.round(2)
    assert row.state == "READY"
    assert timedelta(minutes=4) < row.next_reconcile_at - now() <= timedelta(minutes=5)


def test_one_that_serves_is_looked_at_when_its_minute_is_to_be_metered(
    keep: Any, cluster: ClusterStandIn
) -> None:
    story = keep()
    serving(story, cluster)
    row = story.round()
    assert timedelta(seconds=50) < row.next_reconcile_at - now() <= timedelta(minutes=1)


def test_a_deleted_deployment_waits_until_the_cluster_has_nothing_of_it(
    keep: Any, cluster: ClusterStandIn
) -> None:
    story = keep()
    serving(story, cluster)
    story.change(state="DELETING")
    row = story.round()
    assert (row.state, cluster.removed) == ("DELETING", [str(story.uid)])
    cluster.replicas = {}
    assert story.round().state == "DELETED"


def test_a_fleet_without_a_row_is_removed_and_others_stay(keep: Any, cluster: ClusterStandIn) -> None:
    story, stranger = keep(), str(uuid.uuid4())
    story.round()
    cluster.declared.append(replace(cluster.declared[0], deployment_uid=stranger))
    stop_strays(story.context)
    assert cluster.removed == [stranger]
