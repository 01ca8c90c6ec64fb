"""The objects of accounts and fleets: valid by Kubernetes' own schemas, and as closed as tenants need."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from controlplane.node_pools import Cache, NodePools
from controlplane.sizing import PodSize
from workers.runtimes.base import FleetSpec, ModelFile, ModelSource, ReplicaSpec
from workers.runtimes.kubernetes.account_manifests import account_objects
from workers.runtimes.kubernetes.fleets import sizes_of
from workers.runtimes.kubernetes.manifests import (
    SPEC_ANNOTATION,
    Place,
    fleet_name,
    fleet_objects,
    managed,
    namespace_of,
    short_name,
)
from workers.runtimes.vllm import ENGINE_SPEC

STORE = {"HEARTH_S3_ENDPOINT": "http://s3:9000", "HEARTH_S3_SECRET_KEY": "s3-secret"}
POOLS = NodePools.model_validate(
    {
        "image": "hearth-engine:1",
        "quota": {"requests.nvidia.com/gpu": "8"},
        "pools": [
            {
                "name": "h100",
                "acceleratorType": "NVIDIA_H100_80GB",
                "resource": "nvidia.com/gpu",
                "memoryGiB": 80,
                "nodeSelector": {"cloud/gpu": "h100"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            },
            {"name": "cpu", "cpu": "6"},
        ],
    }
)
ON_GPU = Place(POOLS, POOLS.pools[0], PodSize(2, "8", "32Gi"))
ON_CPU = Place(POOLS, POOLS.pools[1], PodSize(0, "6", "16Gi"))
SPEC = FleetSpec(
    deployment_uid="1a2b3c4d-0000-4000-8000-000000000000",
    deployment_name="accounts/acme/deployments/chat",
    account_id="acme",
    generation=3,
    replicas=2,
    engine=ReplicaSpec("", "served", ModelSource("u", "p/", (ModelFile("w", 1, ""),)), "", 0),
    accelerator_type="NVIDIA_H100_80GB",
    accelerator_count=2,
)
WITH_ADDONS = replace(SPEC, engine=replace(SPEC.engine, enable_adapters=True))


def objects(spec: FleetSpec = SPEC, place: Place = ON_GPU) -> list[dict[str, Any]]:
    return [
        *account_objects(POOLS, spec.account_id, STORE),
        *fleet_objects(spec, place, STORE, owner_uid="uid"),
    ]


def pod_of(spec: FleetSpec = SPEC, place: Place = ON_GPU) -> dict[str, Any]:
    found: dict[str, Any] = fleet_objects(spec, place, STORE)[0]["spec"]["template"]
    return found


EVERY = [
    pytest.param(document, id=f"{name}-{document['kind']}")
    for name, found in (
        ("gpu", objects()),
        ("cpu", objects(place=ON_CPU)),
        ("addons", objects(WITH_ADDONS)),
    )
    for document in found
]


@pytest.mark.parametrize("version", ["1.25", "1.37"])
@pytest.mark.parametrize("document", EVERY)
def test_every_object_is_valid_by_the_published_schemas(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_a_draft_model_takes_room_and_is_brought_as_the_model_is() -> None:
    draft = ModelSource("d", "q/", (ModelFile("w", 5, ""),))
    guessed = replace(SPEC, engine=replace(SPEC.engine, draft=draft), draft_config={"n_layer": 2})
    sizes = sizes_of(guessed)
    assert sizes.draft is not None
    assert (sizes.weight_bytes, sizes.draft.weight_bytes, sizes.draft.layers) == (1, 5, 2)
    assert sizes_of(SPEC).draft is None
    told = ENGINE_SPEC.validate_json(pod_of(guessed)["metadata"]["annotations"][SPEC_ANNOTATION])
    assert told.replica.sources == (SPEC.engine.model, draft)


def test_the_check_by_the_schemas_finds_a_field_that_does_not_exist() -> None:
    broken = pod_of()
    broken["spec"]["containers"][0]["ressources"] = {}
    deployment = {**fleet_objects(SPEC, ON_GPU, STORE)[0]}
    deployment["spec"] = {**deployment["spec"], "template": broken}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, "1.37", strict=True)


def test_another_hearth_on_the_same_cluster_does_not_take_it_for_its_own() -> None:
    own, other = managed(POOLS), managed(POOLS.model_copy(update={"namespace_prefix": "staging"}))
    for each in objects(WITH_ADDONS):
        assert own.items() <= each["metadata"]["labels"].items()
        assert not other.items() <= each["metadata"]["labels"].items()
    assert own.items() <= pod_of()["metadata"]["labels"].items()


def test_the_same_in_gives_the_same_out() -> None:
    assert json.dumps(objects()) == json.dumps(objects())


def test_pods_ask_for_their_pools_nodes_and_gpus() -> None:
    spec = pod_of()["spec"]
    assert spec["containers"][0]["resources"] == {
        "requests": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "32Gi", "nvidia.com/gpu": "2"},
    }
    assert spec["nodeSelector"] == {"cloud/gpu": "h100"}
    assert {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert "nvidia.com/gpu" not in json.dumps(pod_of(place=ON_CPU))


@pytest.mark.parametrize("place", [ON_GPU, ON_CPU])
def test_tenants_pods_can_do_nothing_beside_serving(place: Place) -> None:
    spec = pod_of(WITH_ADDONS, place)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*spec["initContainers"], *spec["containers"]):
        allowed = container["securityContext"]
        assert allowed["readOnlyRootFilesystem"] is True
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["capabilities"] == {"drop": ["ALL"]}


def test_only_what_brings_weights_can_reach_the_object_store() -> None:
    spec = pod_of(WITH_ADDONS)["spec"]
    reach = [each["name"] for each in (*spec["initContainers"], *spec["containers"]) if "envFrom" in each]
    assert reach == ["staging", "addons"]
    folders = {
        container["name"]: {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        for container in (*spec["initContainers"], *spec["containers"])
    }
    assert folders["engine"]["/run/hearth"] not in {folders[name]["/run/hearth"] for name in reach}
    for container in (*spec["initContainers"], *spec["containers"]):
        assert {"name": "PYTHONSAFEPATH", "value": "1"} in container["env"]
    assert "s3-secret" not in json.dumps(fleet_objects(WITH_ADDONS, ON_GPU, STORE))


def test_pods_carry_what_their_engine_is_to_be_and_a_change_of_it_changes_the_template() -> None:
    spec = ENGINE_SPEC.validate_json(pod_of()["metadata"]["annotations"]["hearth.dev/engine"])
    assert (spec.replica.served_name, spec.replica.port, spec.replica.accelerator_count) == (
        "served",
        8000,
        2,
    )
    assert (spec.on_cpu, str(spec.cache_dir)) == (False, "/var/cache/hearth")
    slower = replace(SPEC, engine=replace(SPEC.engine, max_model_len=512))
    assert pod_of(slower) != pod_of()
    assert pod_of(replace(SPEC, replicas=5)) == pod_of()
    on_cpu = ENGINE_SPEC.validate_json(pod_of(place=ON_CPU)["metadata"]["annotations"]["hearth.dev/engine"])
    assert on_cpu.cpu_threads == 6


def test_the_deployment_owns_what_belongs_to_it() -> None:
    deployment, *owned = fleet_objects(SPEC, ON_GPU, STORE, owner_uid="uid")
    assert [each["kind"] for each in owned] == ["ServiceAccount", "Service", "PodDisruptionBudget"]
    for each in owned:
        assert each["metadata"]["name"] == deployment["metadata"]["name"] == "d-chat-1a2b3c4d"
        assert [owner["uid"] for owner in each["metadata"]["ownerReferences"]] == ["uid"]


def test_an_older_cluster_gets_the_version_of_budgets_that_it_knows() -> None:
    (budget,) = (
        each for each in fleet_objects(SPEC, ON_GPU, STORE, "policy/v1beta1") if "Budget" in each["kind"]
    )
    assert budget["apiVersion"] == "policy/v1beta1"


@pytest.mark.parametrize("length", [1, 40, 63])
def test_names_fit_and_stay_different(length: int) -> None:
    name = "a" * (length - 1) + "b"
    spec = replace(SPEC, deployment_name=f"accounts/acme/deployments/{name}", account_id=name)
    other = replace(SPEC, account_id="a" * length)
    assert len(fleet_name(spec)) <= 63
    assert len(namespace_of(POOLS, spec.account_id)) <= 63
    assert namespace_of(POOLS, spec.account_id) != namespace_of(POOLS, other.account_id)


def test_other_credentials_of_the_object_store_are_a_change_that_can_be_seen_without_reading_them() -> None:
    marks = [
        account_objects(POOLS, "acme", {**STORE, "HEARTH_S3_SECRET_KEY": key})[0]["metadata"]["annotations"]
        for key in ("one", "one", "other")
    ]
    assert marks[0] == marks[1] != marks[2]


def test_what_brings_addons_is_replaced_when_the_stores_credentials_change() -> None:
    one, same, other = (
        fleet_objects(WITH_ADDONS, ON_GPU, {**STORE, "HEARTH_S3_SECRET_KEY": key})[0]["spec"]["template"]
        for key in ("one", "one", "other")
    )
    assert one == same != other
    assert (
        pod_of() == fleet_objects(SPEC, ON_GPU, {**STORE, "HEARTH_S3_SECRET_KEY": "x"})[0]["spec"]["template"]
    )


def test_a_short_name_keeps_what_it_can() -> None:
    assert short_name("chat") == "chat"
    assert short_name("x" * 70).startswith("x" * 46 + "-")
    assert short_name(cut := short_name("x" * 70)) != cut


def test_weights_on_the_nodes_own_disk_are_shared_and_the_namespace_allows_it() -> None:
    shared = POOLS.model_copy(update={"cache": POOLS.cache.model_copy(update={"host_path": "/mnt/w"})})
    place = replace(ON_GPU, pools=shared)
    assert pod_of(place=place)["spec"]["volumes"][0]["hostPath"]["path"] == "/mnt/w"
    levels = [
        account_objects(pools, "acme", STORE)[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for pools in (POOLS, shared)
    ]
    assert levels == ["restricted", "privileged"]


@pytest.mark.parametrize(
    ("cache", "limit"),
    [
        ({"hostPath": "/mnt/w"}, None),
        ({"hostPath": "/mnt/w", "limit": "1536Gi"}, "1536"),
        ({"emptyDir": "512Mi"}, "0.5"),
    ],
)
def test_what_brings_weights_knows_how_much_the_cache_may_hold(
    cache: dict[str, str], limit: str | None
) -> None:
    pools = POOLS.model_copy(update={"cache": Cache.model_validate(cache)})
    pod = fleet_objects(WITH_ADDONS, replace(ON_GPU, pools=pools), STORE)[0]["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        told = {each["name"]: each.get("value") for each in container["env"]}
        assert told.get("HEARTH_CACHE_GIB") == limit


def test_the_network_lets_in_hearth_and_lets_out_to_names_and_weights() -> None:
    (policy,) = (each for each in objects() if each["kind"] == "NetworkPolicy")
    assert [rule["ports"] for rule in policy["spec"]["egress"]][1] == [{"protocol": "TCP", "port": 9000}]
    (inward,) = policy["spec"]["ingress"]
    assert inward["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "hearth"}}}
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"namespacePrefix": "kube"}, "is the cluster's own"),
        ({"platformNamespace": "hearth-system"}, "would be an account's"),
    ],
)
def test_no_account_can_get_a_namespace_that_is_somebody_elses(names: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NodePools.model_validate({**POOLS.model_dump(by_alias=True, mode="json"), **names})


@pytest.mark.parametrize(
    ("endpoint", "to"),
    [
        ("http://10.0.0.7:8333", [{"ipBlock": {"cidr": "10.0.0.7/32"}}]),
        (
            "http://s3.example",
            [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}, {"ipBlock": {"cidr": "::/0"}}],
        ),
    ],
)
def test_pods_reach_the_store_and_no_credentials_of_their_node(endpoint: str, to: object) -> None:
    _, policy, *_ = account_objects(POOLS, "acme", {**STORE, "HEARTH_S3_ENDPOINT": endpoint})
    assert policy["spec"]["egress"][1]["to"] == to
