"""Several clusters, one of them away. The clusters are stand-ins: what is asked of whom is what is tested."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from controlplane.config import Settings
from controlplane.node_pools import NodePools
from controlplane.regions import Regions
from tests.runtimes import test_manifests
from workers.runtimes.base import (
    FleetObservation,
    FleetRefused,
    ProcessState,
    ReplicaObservation,
    RuntimeUnavailable,
)
from workers.runtimes.kubernetes.cluster import Refused
from workers.runtimes.kubernetes.fleets import KubernetesFleets
from workers.runtimes.kubernetes.sites import Sites

UP = ReplicaObservation(ProcessState.RUNNING, serving=True)
GPUS = {"acceleratorType": "NVIDIA_H100_80GB", "resource": "nvidia.com/gpu", "memoryGiB": 80}
SPEC = replace(test_manifests.SPEC, check_size=False)
FLEETS = {context: str(uuid.uuid4()) for context in ("home", "away")}
POOLS: dict[str, Any] = {
    "image": "engine",
    "pools": [
        {"name": "cheap", "context": "home", "price": 1, **GPUS},
        {"name": "dear", "context": "away", "price": 2, **GPUS},
    ],
}


@dataclass
class SiteStandIn:
    context: str
    is_away: bool = False
    refuses: bool = False
    pods: dict[str, ReplicaObservation] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @property
    def view(self) -> Any:
        return self

    def groups(self, kind: str) -> frozenset[str]:
        self._look()
        return frozenset({FLEETS[self.context], "changed-by-hand"})

    def group(self, kind: str, uid: str) -> list[Any]:
        self._look()
        return []

    def replicas(self, uid: str) -> dict[str, ReplicaObservation]:
        self._look()
        return self.pods

    def has(self, uid: str) -> bool:
        return bool(self.replicas(uid))

    def pod_of(self, uid: str) -> Any:
        return {"metadata": {}} if uid in self.replicas("") else None

    def declare(self, *_: object) -> None:
        self._look()
        self.told.append("declare")

    def remove(self, uid: str) -> None:
        self._look()
        if self.refuses:
            raise Refused(403, "Forbidden", "no right to delete")
        self.told.append("remove")

    def observe(self, *_: object) -> FleetObservation:
        return FleetObservation(self.replicas(""), True, True)

    def say_serving(self, pod: object, serving: bool) -> None:
        self.told.append("say_serving")

    def _look(self) -> None:
        if self.is_away:
            raise RuntimeUnavailable("the API server does not answer")


@pytest.fixture
def home() -> SiteStandIn:
    return SiteStandIn("home")


@pytest.fixture
def away() -> SiteStandIn:
    return SiteStandIn("away", is_away=True)


@pytest.fixture
def pools() -> dict[str, Any]:
    return POOLS


@pytest.fixture
def fleets(home: SiteStandIn, away: SiteStandIn, pools: dict[str, Any]) -> KubernetesFleets:
    settings = Settings.model_construct(node_pools=NodePools.model_validate(pools))
    found = KubernetesFleets.__new__(KubernetesFleets)
    found._pools, found._store, found._sites = settings.node_pools, {}, Sites.from_settings(settings)
    found._sites._sites = {"home": home, "away": away}  # type: ignore[dict-item]
    return found


def test_a_cluster_that_is_away_holds_up_nothing_on_another_one(
    fleets: KubernetesFleets, home: SiteStandIn
) -> None:
    uid = str(uuid.uuid4())
    home.pods = {uid: UP}
    assert fleets.observe(SPEC) == FleetObservation({uid: UP}, True, True)
    fleets.declare(SPEC)
    fleets.say_serving(uid, True)
    fleets.remove(SPEC.deployment_uid)
    assert home.told == ["declare", "say_serving", "remove"]
    assert fleets.known() == {FLEETS["home"]}


def test_what_is_deleted_is_not_gone_while_a_cluster_cannot_say_so(
    fleets: KubernetesFleets, away: SiteStandIn
) -> None:
    found = fleets.remains(SPEC.deployment_uid)
    assert (found.exists, found.message) == (True, "the cluster away: the API server does not answer")
    with pytest.raises(RuntimeUnavailable, match="does not answer"):
        fleets.prove_base(str(uuid.uuid4()))
    away.is_away = False
    assert fleets.remains(SPEC.deployment_uid) == FleetObservation({}, exists=False)


def test_a_fleet_that_moves_goes_from_the_old_cluster_when_it_serves_on_the_new_one(
    fleets: KubernetesFleets, home: SiteStandIn, away: SiteStandIn
) -> None:
    away.is_away = False
    fleets.declare(SPEC)
    home.pods = {"one": UP, "two": replace(UP, serving=False)}
    fleets.declare(SPEC)
    assert away.told == []
    home.pods["two"] = UP
    fleets.declare(SPEC)
    assert away.told == ["remove"]


IN_REGIONS = {
    **POOLS,
    "pools": [
        {**pool, "region": region}
        for pool, region in zip(POOLS["pools"], ("US_IOWA_1", "EU_ICELAND_1"), strict=True)
    ],
}


@pytest.mark.parametrize(
    ("placement", "context", "region"),
    [
        ({}, "home", "US_IOWA_1"),
        ({"region": "EU_ICELAND_1"}, "away", "EU_ICELAND_1"),
        ({"multi_region": "EUROPE"}, "away", "EU_ICELAND_1"),
        ({"regions": ["EU_ICELAND_1", "US_IOWA_1"]}, "home", "US_IOWA_1"),  # the cheaper one
    ],
)
@pytest.mark.parametrize("pools", [IN_REGIONS], ids=["in-regions"])
def test_a_fleet_goes_to_the_cluster_of_the_region_that_it_is_placed_in(
    fleets: KubernetesFleets,
    home: SiteStandIn,
    away: SiteStandIn,
    placement: dict[str, Any],
    context: str,
    region: str,
) -> None:
    away.is_away = False
    spec = replace(SPEC, regions=Regions.of(placement))
    fleets.declare(spec)
    assert {"home": home.told, "away": away.told} == {"home": [], "away": [], context: ["declare"]}
    assert fleets.observe(spec).region == region


@pytest.mark.parametrize("pools", [IN_REGIONS], ids=["in-regions"])
def test_a_region_that_no_pool_is_in_any_more_is_named(fleets: KubernetesFleets, home: SiteStandIn) -> None:
    with pytest.raises(FleetRefused) as refused:
        fleets.declare(replace(SPEC, regions=Regions(frozenset({"AP_TOKYO_1"}))))
    assert (refused.value.reason, home.told) == ("NO_NODE_POOL", [])
    assert refused.value.message == (
        "no node pool has NVIDIA_H100_80GB in AP_TOKYO_1; there are: NVIDIA_H100_80GB in EU_ICELAND_1, "
        "NVIDIA_H100_80GB in US_IOWA_1"
    )


def test_a_right_that_is_missing_ends_no_round_and_no_sweep(
    fleets: KubernetesFleets, home: SiteStandIn, away: SiteStandIn
) -> None:
    away.is_away, home.refuses = False, True
    fleets.remove(SPEC.deployment_uid)
    assert away.told == ["remove"]
