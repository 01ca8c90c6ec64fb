"""Trainers on several clusters, one of them away. The clusters are stand-ins: who is asked what is tested."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from controlplane.config import Settings
from controlplane.node_pools import NodePools
from tests.runtimes.test_clusters import POOLS
from tests.runtimes.test_trainer_manifests import SPEC
from tests.runtimes.test_trainer_observation import job, pod
from workers.runtimes.base import NoCapacity, ProcessState, RuntimeUnavailable
from workers.runtimes.kubernetes import KubernetesTrainers, Sites

UID, ATTEMPT = SPEC.job_uid, SPEC.attempt


@dataclass
class SiteStandIn:
    objects: dict[str, list[Any]] = field(default_factory=lambda: {"Job": [], "Pod": []})
    deleted: list[str] = field(default_factory=list)
    is_away: bool = False
    logs_asked: int = 0

    @property
    def trainers(self) -> Any:
        return self

    @property
    def cluster(self) -> Any:
        return self

    def group(self, kind: str, uid: str) -> list[Any]:
        if self.is_away:
            raise RuntimeUnavailable("the API server does not answer")
        return self.objects[kind] if uid == UID else []

    def groups(self, kind: str) -> frozenset[str]:
        return frozenset({UID, "changed-by-hand"}) if self.objects[kind] else frozenset()

    def open_log(self, *asked: Any) -> Any:
        self.logs_asked += 1
        raise RuntimeUnavailable("the kubelet does not answer")

    def delete(self, kind: Any, namespace: str, name: str, **options: Any) -> None:
        self.deleted.append(f"{kind.name} {options.get('grace_seconds')}")

    def add(self, attempt: int = ATTEMPT) -> Any:
        for kind, found in (("Job", job()), ("Pod", pod())):
            labels = {"hearth.dev/attempt": str(attempt)}
            found["metadata"] |= {"name": kind, "namespace": "n", "uid": kind, "labels": labels}
            self.objects[kind].append(found)
        return self.objects["Pod"][-1]


@pytest.fixture
def home() -> SiteStandIn:
    return SiteStandIn()


@pytest.fixture
def away() -> SiteStandIn:
    return SiteStandIn(is_away=True)


@pytest.fixture
def trainers(settings: Settings, home: SiteStandIn, away: SiteStandIn) -> KubernetesTrainers:
    sites = Sites(NodePools.model_validate(POOLS))
    sites._sites = {"home": home, "away": away}  # type: ignore[dict-item]
    return KubernetesTrainers(settings, sites)


def test_what_one_cluster_has_is_seen_and_stopped_while_another_one_is_away(
    trainers: KubernetesTrainers, home: SiteStandIn
) -> None:
    home.add()
    assert trainers.observe_trainer(UID, ATTEMPT).state is ProcessState.RUNNING
    assert trainers.list_trainers() == {(UID, ATTEMPT)}
    trainers.stop_trainer(UID, ATTEMPT, 6.0)
    assert home.deleted == ["Job None", "Pod 6"]


def test_what_a_silent_cluster_may_have_is_neither_absent_nor_stopped(trainers: KubernetesTrainers) -> None:
    for ask in (trainers.observe_trainer, trainers.stop_trainer, trainers.remove_trainer):
        with pytest.raises(RuntimeUnavailable, match="does not answer"):
            ask(UID, ATTEMPT)
    assert trainers.ended_trainers() == frozenset()


def test_of_several_stops_the_earliest_end_counts(trainers: KubernetesTrainers, home: SiteStandIn) -> None:
    found = home.add()
    found["metadata"] |= {"deletionTimestamp": "now", "deletionGracePeriodSeconds": 60}
    home.objects["Job"][0]["metadata"]["deletionTimestamp"] = "now"
    trainers.stop_trainer(UID, ATTEMPT, 60.0)
    assert home.deleted == []
    trainers.stop_trainer(UID, ATTEMPT, 6.0)
    assert home.deleted == ["Pod 6"]


def test_an_attempt_does_not_begin_before_the_one_before_has_ended(
    trainers: KubernetesTrainers, home: SiteStandIn, away: SiteStandIn
) -> None:
    away.is_away = False
    found = home.add(ATTEMPT - 1)
    with pytest.raises(NoCapacity, match="the trainer before it, on one, has not ended yet"):
        trainers.start_trainer(SPEC)
    assert trainers.remove_trainer(UID, ATTEMPT - 1) is False
    assert home.deleted == []
    found["status"]["phase"] = "Failed"
    assert trainers.ended_trainers() == {(UID, ATTEMPT - 1)}


def test_the_log_of_a_trainer_that_waits_is_not_asked_for(
    trainers: KubernetesTrainers, home: SiteStandIn
) -> None:
    found = home.add()
    found["status"] = {"phase": "Pending"}
    assert trainers.read_trainer_log(UID, ATTEMPT, 7, 100) == (7, b"")
    assert home.logs_asked == 0
    found["status"] = pod()["status"]
    assert trainers.read_trainer_log(UID, ATTEMPT, 7, 100) == (7, b"")
    assert home.logs_asked == 1
