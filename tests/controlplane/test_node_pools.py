"""Node pools as an operator writes them, and what deployments may ask of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from controlplane.config import Settings, load_settings
from controlplane.db import Database
from controlplane.node_pools import NodePools
from controlplane.resources.deployments.planned import leaves_open, planned_accelerators
from controlplane.resources.tables import DeploymentRow, ModelRow

SEVENTY_BILLION = {
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "hidden_size": 8192,
}
P = "/v1/accounts/hearth"
H100 = {
    "name": "h100",
    "acceleratorType": "NVIDIA_H100_80GB",
    "resource": "nvidia.com/gpu",
    "memoryGiB": 80,
    "perNode": 4,
}
GOOD: dict[str, Any] = {"image": "hearth-engine:1", "pools": [H100, {"name": "cpu"}]}


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "pools": [{**H100, **changes}]}


MISTAKES = [
    ({"pools": [H100]}, "image: Field required"),
    ({"image": "i", "pools": []}, "pools: Tuple should have at least 1 item"),
    ({**GOOD, "colour": "red"}, "colour: Extra inputs are not permitted"),
    ({**GOOD, "pools": [H100, H100]}, "two pools are called h100"),
    ({**GOOD, "trainingPools": ["a100"]}, "trainingPools: there is no pool a100"),
    ({**GOOD, "cache": {}}, "cache: needs either hostPath or emptyDir"),
    ({**GOOD, "cache": {"hostPath": "weights"}}, "cache.hostPath: String should match pattern"),
    (
        {**GOOD, "cache": {"emptyDir": "1Gi", "limit": "1Gi"}},
        "cache: limit is for a hostPath: an emptyDir has",
    ),
    ({**GOOD, "quota": {"pods": "many"}}, "quota.pods: 'many' is no quantity, as 8 or 500m or 64Gi is"),
    ({**GOOD, "namespacePrefix": "Hearth"}, "namespacePrefix 'Hearth' is no short DNS label"),
    (changed(acceleratorType="NVIDIA_H9000"), "pools.0.acceleratorType: 'NVIDIA_H9000' is none of NVIDIA_"),
    (changed(memoryGiB=None), "acceleratorType, resource and memoryGiB belong together"),
    (changed(resource="amd.com/gpu"), "NVIDIA_H100_80GB is not requested as amd.com/gpu"),
    (changed(nodeSelector={"a": "b c"}), "nodeSelector a: 'b c' is no value of a label"),
    (
        changed(tolerations=[{"operator": "Exists", "value": "x"}]),
        "which the operator Exists takes no notice",
    ),
    (changed(tolerations=[{"value": "x"}]), "pools.0.tolerations.0: needs a key, or the operator Exists"),
    (
        changed(region="iowa"),
        "pools.0.region: 'iowa' is no name of a region, as US_IOWA_1 is: capital letters and digits with",
    ),
    (changed(region="REGION_UNSPECIFIED"), "pools.0.region: 'REGION_UNSPECIFIED' is no name of a region"),
    (changed(price=-1), "pools.0.price: Input should be greater than or equal to 0"),
]


@pytest.mark.parametrize(("document", "said"), MISTAKES, ids=[said[:40] for _, said in MISTAKES])
def test_a_mistake_is_one_clear_line_at_start(
    document: dict[str, Any],
    said: str,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment(monkeypatch, settings, tmp_path, document)
    with pytest.raises(SystemExit):
        load_settings()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hearth: HEARTH_NODE_POOLS: ")
    assert said in line


def environment(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, folder: Path, document: dict[str, Any]
) -> None:
    (folder / "pools.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("HEARTH_NODE_POOLS", str(folder / "pools.yaml"))
    for name in ("database_url", "redis_url", "s3_endpoint", "s3_access_key"):
        monkeypatch.setenv(f"HEARTH_{name.upper()}", getattr(settings, name))
    monkeypatch.setenv("HEARTH_S3_SECRET_KEY", settings.s3_secret_key.get_secret_value())


def test_a_yaml_file_is_read_and_one_that_is_none_says_where(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(monkeypatch, settings, tmp_path, GOOD)
    assert load_settings().node_pools == NodePools.model_validate(GOOD)
    (tmp_path / "pools.yaml").write_text("image: [")
    with pytest.raises(SystemExit):
        load_settings()
    assert "HEARTH_NODE_POOLS: is not valid YAML: while parsing a flow" in capsys.readouterr().err


def test_of_two_pools_with_the_same_gpus_the_cheaper_one_comes_first() -> None:
    dear, cheap = {**H100, "name": "dear", "price": "4.5"}, {**H100, "name": "cheap", "price": 2}
    pools = NodePools.model_validate({**GOOD, "pools": [dear, {"name": "cpu"}, cheap]})
    assert [pool.name for pool in pools.pools_for("NVIDIA_H100_80GB")] == ["cheap", "dear"]
    assert [pool.name for pool in pools.pools_for("ACCELERATOR_TYPE_UNSPECIFIED")] == ["cheap", "dear"]
    assert pools.pools_for("AMD_MI300X_192GB") == ()


def test_pools_cannot_be_changed_once_they_are_read() -> None:
    pools = NodePools.model_validate(GOOD)
    with pytest.raises(ValidationError):
        pools.pools[0].name = "other"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"node_pools": NodePools.model_validate(GOOD)})


async def test_a_deployment_that_leaves_its_gpus_open_counts_as_what_the_planner_chooses(
    api: Any, base: Any, db: Database
) -> None:
    """150 GiB, of H100s that offer 70.5 each: four, because its heads are not split by three."""
    with db.session() as session:
        row = session.get_one(ModelRow, base.uid)
        row.files = {"model.safetensors": {"size": 150 * 1024**3, "sha256": "0" * 64}}
        row.facts = {**row.facts, "config": SEVENTY_BILLION}
    set_to_eight = await api.patch(f"{P}/quotas/h100-count", json={"value": 8})
    assert set_to_eight.status_code == 200

    async def create(name: str, **fields: Any) -> Any:
        body = {"baseModel": base.name, "acceleratorType": "NVIDIA_H100_80GB", **fields}
        return await api.post(f"{P}/deployments?deploymentId={name}", json=body)

    assert (await create("open", maxReplicaCount=2)).status_code == 200
    assert (await api.get(f"{P}/quotas/h100-count")).json()["usage"] == 8
    refused = await create("more", acceleratorCount=1)
    assert refused.status_code == 429
    held = "this takes 1 (replicas × accelerators), while 8 are held: accounts/hearth/deployments/open (8)"
    assert held in refused.json()["message"]
    fewer = {"baseModel": base.name, "maxReplicaCount": 1}
    assert (await api.patch(f"{P}/deployments/open", json=fewer)).status_code == 200
    assert (await api.get(f"{P}/quotas/h100-count")).json()["usage"] == 4


async def test_the_model_that_guesses_ahead_counts_too(
    api: Any, base: Any, add_model: Any, db: Database
) -> None:
    """135 GiB lie on two GPUs of 70.5 GiB, and with 10 GiB more on four."""
    facts = {"config": SEVENTY_BILLION}
    add_model("small", files={"w": {"size": 10 * 1024**3, "sha256": ""}}, facts=facts)
    with db.session() as session:
        row = session.get_one(ModelRow, base.uid)
        row.files, row.facts = {"w": {"size": 135 * 1024**3, "sha256": ""}}, {**row.facts, **facts}
    asked = {"baseModel": base.name, "acceleratorType": "NVIDIA_H100_80GB", "draftModel": "small"}
    assert (await api.post(f"{P}/deployments?deploymentId=d", json=asked)).status_code == 200
    assert (await api.get(f"{P}/quotas/h100-count")).json()["usage"] == 4
    assert (await api.patch(f"{P}/deployments/d", json={"draftModel": ""})).status_code == 200
    assert (await api.get(f"{P}/quotas/h100-count")).json()["usage"] == 2


@pytest.mark.parametrize(
    ("kind", "count", "held"),
    [
        ("NVIDIA_H100_80GB", 3, 3),
        # Of a pool that was there when the deployment was made.
        ("AMD_MI300X_192GB", 2, 2),
        ("AMD_MI300X_192GB", 0, 1),
        # The first pool has none.
        ("ACCELERATOR_TYPE_UNSPECIFIED", 0, 0),
    ],
)
def test_how_many_gpus_are_held_depends_on_the_model_only_where_it_is_left_open(
    kind: str, count: int, held: int
) -> None:
    pools = NodePools.model_validate({**GOOD, "pools": [{"name": "cpu"}, H100]})
    row = DeploymentRow(accelerator_type=kind, accelerator_count=count)
    assert not leaves_open(row, pools)
    assert planned_accelerators(row, None, pools) == held
    assert leaves_open(DeploymentRow(accelerator_type="NVIDIA_H100_80GB", accelerator_count=0), pools)


@pytest.mark.parametrize(
    ("gib", "count", "held"),
    [
        (30, 0, 2),  # one would do
        (100, 0, 4),
        (150, 0, 1),  # four would do, and nobody has eight: what fits nowhere counts as one
        (30, 4, 4),
    ],
)
def test_long_prompts_take_twice_as_many_gpus_as_would_do(gib: int, count: int, held: int) -> None:
    pools = NodePools.model_validate(GOOD)
    row = DeploymentRow(accelerator_type="", accelerator_count=count, long_prompt=True)
    files = {"model.safetensors": {"size": gib * 1024**3}}
    base = ModelRow(files=files, facts={"config": SEVENTY_BILLION}, context_length=8192)
    assert planned_accelerators(row, base, pools) == held


async def test_on_a_cluster_long_prompts_need_a_pool_with_two_gpus_a_node(api: Any, base: Any) -> None:
    async def create(**fields: Any) -> Any:
        body = {"baseModel": base.name, "autoTune": {"longPrompt": True}, **fields}
        return await api.post(f"{P}/deployments?validateOnly=true", json=body)

    assert (await create()).status_code == 200
    assert "acceleratorCount is 1" in (await create(acceleratorCount=1)).json()["message"]


async def test_on_a_cluster_the_kind_of_the_first_pool_counts_for_who_names_none(api: Any, base: Any) -> None:
    taken = await api.post(f"{P}/deployments?deploymentId=open", json={"baseModel": base.name})
    assert taken.status_code == 200
    assert (await api.get(f"{P}/quotas/gpu-count")).json()["usage"] == 1


async def test_on_gpus_weights_or_the_cache_may_be_of_eight_bits(api: Any, base: Any) -> None:
    async def create(precision: str) -> Any:
        return await api.post(f"{P}/deployments", json={"baseModel": base.name, "precision": precision})

    for precision in ("FP8", "FP8_MM", "FP8_KV"):
        assert (await create(precision)).json()["precision"] == precision
    refused = await create("NF4")
    assert "precision NF4 is not served; use BF16, FP16, FP8, FP8_MM or FP8_KV" in refused.json()["message"]


async def test_deployments_ask_for_what_the_clusters_pools_have_and_not_this_machine(
    api: Any, base: Any
) -> None:
    async def create(**fields: Any) -> Any:
        return await api.post(f"{P}/deployments", json={"baseModel": base.name, **fields})

    taken = await create(acceleratorType="NVIDIA_H100_80GB", acceleratorCount=4)
    assert (taken.status_code, taken.json()["acceleratorCount"]) == (200, 4)
    many = await create(acceleratorType="NVIDIA_H100_80GB", acceleratorCount=8)
    assert "acceleratorCount is 8, and a replica can have 4 GPUs at most" in many.json()["message"]
    other = await create(acceleratorType="AMD_MI300X_192GB")
    assert "AMD_MI300X_192GB cannot be had: the cluster has NVIDIA_H100_80GB" in other.json()["message"]
