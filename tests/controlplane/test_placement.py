"""Deployments that say in which regions their replicas may run, on a cluster with pools in several."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, update

from controlplane.config import Settings
from controlplane.db import Database
from controlplane.node_pools import NodePools
from controlplane.regions import ANYWHERE, Regions
from controlplane.resources.tables import DeploymentRow
from tests.controlplane.test_deployment_shapes import make_validated, match

P = "/v1/accounts/hearth"
PATH = f"{P}/deployments"
H100, A100, OPEN = "NVIDIA_H100_80GB", "NVIDIA_A100_80GB", "ACCELERATOR_TYPE_UNSPECIFIED"
GPUS = {"resource": "nvidia.com/gpu", "memoryGiB": 80, "perNode": 4}
POOLS = NodePools.model_validate(
    {
        "image": "engine",
        "pools": [
            {"name": "cpu", "region": "EU_FRANKFURT_1"},
            {"name": "iowa", "region": "US_IOWA_1", "acceleratorType": H100, "price": 3, **GPUS},
            {"name": "tokyo", "region": "AP_TOKYO_1", "acceleratorType": H100, "price": 2, **GPUS},
            {"name": "cellar", "acceleratorType": A100, **GPUS},
        ],
    }
)


@pytest.fixture
def pools() -> NodePools:
    return POOLS


@pytest.fixture
def settings(settings: Settings, pools: NodePools) -> Settings:
    return settings.model_copy(update={"node_pools": pools})


async def create(api: Any, deployment_id: str = "d", **fields: Any) -> Any:
    body = {"baseModel": "accounts/hearth/models/base", **fields}
    return await api.post(f"{PATH}?deploymentId={deployment_id}", json=body)


def change(db: Database, **values: Any) -> None:
    with db.session() as session:
        session.execute(update(DeploymentRow).values(**values))


@pytest.mark.parametrize(
    ("placement", "kind", "names"),
    [
        ({}, H100, ["tokyo", "iowa"]),
        ({"multi_region": "GLOBAL"}, A100, ["cellar"]),
        ({"region": "US_IOWA_1"}, H100, ["iowa"]),
        ({"regions": ["US_IOWA_1", "AP_TOKYO_1"]}, H100, ["tokyo", "iowa"]),
        ({"multi_region": "US"}, H100, ["iowa"]),
        ({"multi_region": "APAC"}, H100, ["tokyo"]),
        ({"multi_region": "US"}, A100, []),
        # Left open, the kind is that of the first pool there.
        ({}, OPEN, ["cpu"]),
        ({"multi_region": "EUROPE"}, OPEN, ["cpu"]),
        ({"regions": ["US_IOWA_1", "AP_TOKYO_1"]}, OPEN, ["tokyo", "iowa"]),
        ({"region": "US_OHIO_1"}, OPEN, []),
    ],
)
def test_pools_are_those_of_the_regions_and_the_cheapest_comes_first(
    placement: dict[str, Any], kind: str, names: list[str]
) -> None:
    regions = Regions.of(placement)
    assert [pool.name for pool in POOLS.pools_for(kind, regions)] == names
    assert POOLS.has_gpus(kind, regions) is (names not in ([], ["cpu"]))


def test_regions_without_a_name_are_only_anywhere() -> None:
    assert ANYWHERE.have("")
    assert not any(Regions(multi_region=each).have("") for each in ("US", "EUROPE", "APAC"))


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ({"region": "US_IOWA_1"}, {"region": "US_IOWA_1"}),
        ({"regions": ["US_IOWA_1", "", "AP_TOKYO_1", "US_IOWA_1"]}, {"regions": ["US_IOWA_1", "AP_TOKYO_1"]}),
        ({"multi_region": "APAC", "region": "REGION_UNSPECIFIED"}, {"multiRegion": "APAC"}),
        ({"multiRegion": "GLOBAL"}, {"multiRegion": "GLOBAL"}),
        ({"region": "", "multiRegion": "", "regions": []}, None),
    ],
)
async def test_a_placement_is_shown_as_it_was_stated(api: Any, base: Any, stated: Any, shown: Any) -> None:
    made = await create(api, placement=stated)
    assert made.status_code == 200
    nothing = {"region": "REGION_UNSPECIFIED", "multiRegion": "MULTI_REGION_UNSPECIFIED", "regions": []}
    found = (await api.get(f"{PATH}/d")).json()
    assert found.get("placement") == (shown and {**nothing, **shown})
    assert found["region"] == "REGION_UNSPECIFIED"  # no worker has placed it


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (
        {"placement": {"region": "US_OHIO_1"}},
        "placement.region",
        "placement.region US_OHIO_1 cannot be had: the cluster's regions are AP_TOKYO_1, EU_FRANKFURT_1, "
        "US_IOWA_1",
    ),
    (
        {"placement": {"regions": ["US_IOWA_1", "US_OHIO_1", "us-iowa-1"]}},
        "placement.regions",
        "placement.regions US_OHIO_1, us-iowa-1 cannot be had: the cluster's regions are AP_TOKYO_1",
    ),
    (
        {"placement": {"region": "US_IOWA_1", "multiRegion": "US"}},
        "placement",
        "placement says region and multiRegion; let it say one of region, multiRegion and regions",
    ),
    (
        {"placement": {"region": "EU_FRANKFURT_1"}, "acceleratorType": H100},
        "acceleratorType",
        "NVIDIA_H100_80GB cannot be had in EU_FRANKFURT_1: the cluster has no GPUs there, and "
        "NVIDIA_H100_80GB in AP_TOKYO_1, US_IOWA_1",
    ),
    (
        {"placement": {"multiRegion": "US"}, "acceleratorType": A100},
        "acceleratorType",
        "NVIDIA_A100_80GB cannot be had in US: the cluster has NVIDIA_H100_80GB there, and NVIDIA_A100_80GB "
        "where its regions have no names: leave placement unset",
    ),
    (
        {"placement": {"multiRegion": "US"}, "acceleratorType": "AMD_MI300X_192GB"},
        "acceleratorType",
        "AMD_MI300X_192GB cannot be had: the cluster has NVIDIA_A100_80GB, NVIDIA_H100_80GB",
    ),
    (
        {"placement": {"region": "US_IOWA_1"}, "acceleratorCount": 8},
        "acceleratorCount",
        "acceleratorCount is 8, and a replica can have 4 GPUs at most in US_IOWA_1",
    ),
    (
        {"placement": {"region": "EU_FRANKFURT_1"}, "precision": "FP8"},
        "precision",
        "precision FP8 needs a GPU, and models run on the CPU here",
    ),
]


async def test_what_cannot_be_had_in_a_region_is_refused_with_where_it_is(
    api: Any, base: Any, db: Database
) -> None:
    for fields, field, words in REFUSED:
        refused = await create(api, **fields)
        assert refused.status_code == 400, fields
        assert words in refused.json()["message"]
        assert refused.json()["details"][0]["fieldViolations"][0]["field"] == field
    with db.session() as session:
        assert session.scalar(select(func.count()).select_from(DeploymentRow)) == 0
    assert (await create(api, placement={"region": "US_IOWA_1"}, precision="FP8")).status_code == 200


def elsewhere(region: str) -> NodePools:
    """One pool, there."""
    return POOLS.model_copy(update={"pools": (POOLS.pools[0].model_copy(update={"region": region}),)})


@pytest.mark.parametrize(
    ("pools", "words"),
    [
        (elsewhere("US_IOWA_1"), "the cluster's regions are US_IOWA_1"),
        (elsewhere(""), "the cluster's regions have no names; leave placement unset"),
    ],
    ids=["elsewhere", "nameless"],
)
async def test_a_part_of_the_world_that_no_pool_is_in_is_refused(api: Any, base: Any, words: str) -> None:
    refused = await create(api, placement={"multiRegion": "EUROPE"})
    assert refused.json()["message"] == f"placement.multiRegion EUROPE cannot be had: {words}"


async def test_a_placement_stays_as_it_is_in_whatever_words(api: Any, base: Any) -> None:
    await create(api, placement={"region": "US_IOWA_1"})
    for same in ({"region": "US_IOWA_1"}, {"regions": ["US_IOWA_1"]}):
        body = {"placement": same, "displayName": "Same", "maxContextLength": 512}
        kept = await api.patch(f"{PATH}/d", json=body)
        assert (kept.status_code, kept.json()["maxContextLength"]) == (200, 512)
        assert kept.json()["placement"]["region"] == "US_IOWA_1"
    words = "placement of a deployment cannot be changed; make another deployment"
    for other in ({"region": "AP_TOKYO_1"}, {"multiRegion": "US"}, {"multiRegion": "GLOBAL"}, None):
        refused = await api.patch(f"{PATH}/d", json={"placement": other})
        assert (refused.status_code, refused.json()["message"]) == (400, words)
    added = {"placement": {"regions": ["AP_TOKYO_1"]}}
    refused = await api.patch(f"{PATH}/d?updateMask=placement.regions", json=added)
    assert (refused.status_code, refused.json()["message"]) == (400, words)
    anywhere = (await create(api, "anywhere")).json()
    same = {"placement": {"multiRegion": "GLOBAL"}, "baseModel": anywhere["baseModel"]}
    assert (await api.patch(f"{PATH}/anywhere", json=same)).status_code == 200


async def test_a_change_and_a_return_go_by_the_placement_too(api: Any, base: Any, db: Database) -> None:
    await create(api, placement={"region": "EU_FRANKFURT_1"})
    refused = await api.patch(f"{PATH}/d", json={"acceleratorType": H100})
    assert f"{H100} cannot be had in EU_FRANKFURT_1" in refused.json()["message"]
    change(db, placement={"regions": ["US_GONE_1", "US_IOWA_1"]})  # one of which had a pool once
    assert (await api.patch(f"{PATH}/d", json={"precision": "BF16"})).status_code == 200
    later = func.now() + func.make_interval(0, 0, 0, 1)
    change(db, placement={"region": "US_GONE_1"}, state="DELETED", delete_time=func.now(), purge_time=later)
    gone = await api.post(f"{PATH}/d:undelete", json={})
    words = "placement US_GONE_1 cannot be had: the cluster's regions are AP_TOKYO_1, EU_FRANKFURT_1"
    assert (gone.status_code, words in gone.json()["message"]) == (400, True)


async def test_gpus_that_are_left_open_count_as_what_the_region_has(api: Any, base: Any) -> None:
    """The first pool of all has none."""
    await create(api, "anywhere")
    await create(api, "europe", placement={"multiRegion": "EUROPE"})
    assert (await api.get(f"{P}/quotas/gpu-count")).json()["usage"] == 0
    assert (await create(api, "iowa", placement={"region": "US_IOWA_1"})).status_code == 200
    assert (await api.get(f"{P}/quotas/gpu-count")).json()["usage"] == 1
    assert (await api.patch(f"{P}/quotas/gpu-count", json={"value": 1})).status_code == 200
    refused = await create(api, "tokyo", placement={"region": "AP_TOKYO_1"})
    assert (refused.status_code, "deployments/iowa (1)" in refused.json()["message"]) == (429, True)


async def test_a_shape_is_chosen_whose_gpus_are_in_the_region(api: Any, base: Any) -> None:
    await make_validated(api, "slow", precision="BF16")
    await make_validated(api, "fast", acceleratorType=H100)
    made = await create(api, "us", deploymentShape="default", placement={"multiRegion": "US"})
    assert "deploymentShapes/fast/" in made.json()["deploymentShape"]
    made = await create(api, "eu", deploymentShape="default", placement={"multiRegion": "EUROPE"})
    assert "deploymentShapes/slow/" in made.json()["deploymentShape"]
    assert await match(api, placement={"multiRegion": "EUROPE"}) == ["slow"]


async def test_lists_are_filtered_by_region_and_placement(api: Any, base: Any, db: Database) -> None:
    await create(api, "iowa", placement={"region": "US_IOWA_1"})
    change(db, region="US_IOWA_1")
    await create(api, "apac", placement={"multiRegion": "APAC"})
    await create(api, "anywhere")
    for words, names in (
        ('region="US_IOWA_1"', ["iowa"]),
        ('region="REGION_UNSPECIFIED"', ["apac", "anywhere"]),
        ('placement.region="US_IOWA_1"', ["iowa"]),
        ("placement.multi_region=APAC", ["apac"]),
        ("placement:*", ["iowa", "apac"]),
        ("-placement:*", ["anywhere"]),
    ):
        found = await api.get(PATH, params={"filter": words})
        assert [each["name"].rpartition("/")[2] for each in found.json()["deployments"]] == names, words
    ordered = await api.get(PATH, params={"orderBy": "region desc"})
    assert ordered.json()["deployments"][0]["region"] == "US_IOWA_1"
