"""Node pools as an operator writes them, and what deployments may ask of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from controlplane.config import Settings, load_settings
from controlplane.node_pools import NodePools

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
