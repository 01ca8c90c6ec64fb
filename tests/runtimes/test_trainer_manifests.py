"""The objects of an attempt at a fine-tuning job: valid by Kubernetes' own schemas, and closed to others."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from controlplane.node_pools import NodePools
from tests.runtimes.test_manifests import POOLS
from workers.runtimes.base import NeverFits, TrainerSpec
from workers.runtimes.kubernetes.manifests import Manifest
from workers.runtimes.kubernetes.quota import shortage
from workers.runtimes.kubernetes.trainer_manifests import account, job, job_name, owned_objects
from workers.runtimes.kubernetes.trainer_size import place_trainer

ON_CPU = POOLS.model_copy(update={"training_pools": ("cpu",)})
KEYS = {"HEARTH_S3_SECRET_KEY": "s3-secret", "WANDB_API_KEY": "wandb-secret"}
DOCUMENT: dict[str, Any] = {
    "job_name": "accounts/acme/fineTuningJobs/colours",
    "base_model": {"files": [{"name": "model.safetensors", "size": 16_000_000_000}]},
    "cutoff_length": 2048,
    "lora_rank": 16,
    "lora_target_modules": ["q_proj", "v_proj"],
}
SPEC = TrainerSpec("1a2b3c4d-0000-4000-8000-000000000000", 2, DOCUMENT, accelerator_count=2)
RUN = {"base_url": "https://api.wandb.ai", "mode": "online"}
TRACKED = replace(SPEC, document={**DOCUMENT, "wandb": RUN})
FACTS = {
    "parameter_count": 8_000_000_000,
    "config": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}


def objects(spec: TrainerSpec = SPEC, pools: NodePools = POOLS) -> list[Manifest]:
    place = place_trainer(spec, pools)
    return [account(spec, pools), job(spec, place, KEYS), *owned_objects(spec, place, KEYS, "uid")]


def pod(spec: TrainerSpec = SPEC, pools: NodePools = POOLS) -> Manifest:
    found: Manifest = objects(spec, pools)[1]["spec"]["template"]["spec"]
    return found


EVERY = [
    pytest.param(document, id=f"{name}-{document['kind']}")
    for name, found in (("gpu", objects(TRACKED)), ("cpu", objects(pools=ON_CPU)))
    for document in found
]


@pytest.mark.parametrize("version", ["1.25", "1.37"])
@pytest.mark.parametrize("document", EVERY)
def test_every_object_is_valid_by_the_published_schemas(document: Manifest, version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_a_job_is_one_pod_that_is_never_started_again() -> None:
    found = objects()[1]
    assert found["metadata"]["name"] == job_name(SPEC) == "t-colours-1a2b3c4d-2"
    assert job_name(replace(SPEC, attempt=3)) != job_name(SPEC)
    spec = found["spec"]
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (0, 1, 1)
    assert "activeDeadlineSeconds" not in spec
    assert pod()["restartPolicy"] == "Never"
    assert pod()["terminationGracePeriodSeconds"] == 60


def test_it_asks_for_its_pools_nodes_and_an_accelerator_for_each_process() -> None:
    spec = pod()
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": "2"}
    assert spec["nodeSelector"] == {"cloud/gpu": "h100"}
    assert {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    with pytest.raises(NeverFits, match="have 8 GPUs each at most: 16 cannot be had"):
        place_trainer(replace(SPEC, accelerator_count=16), POOLS)


def test_without_accelerators_it_asks_for_the_memory_that_its_model_takes() -> None:
    assert pod(pools=ON_CPU)["containers"][0]["resources"]["requests"] == {"cpu": "12", "memory": "32Gi"}
    large = place_trainer(replace(SPEC, model_facts=FACTS), ON_CPU)
    assert 2 * 16 < int(large.size.memory.removesuffix("Gi")) < 2 * 64
    threads = {"name": "OMP_NUM_THREADS", "value": "6"}
    assert threads in pod(pools=ON_CPU)["containers"][0]["env"]


def test_keys_are_in_its_own_secret_and_nowhere_else() -> None:
    found = objects(TRACKED)
    (secret,) = (each for each in found if each["kind"] == "Secret")
    data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert {name: data[name] for name in KEYS} == KEYS
    assert json.loads(data["SPEC.json"]) == TRACKED.document
    rest = json.dumps([each for each in found if each is not secret])
    assert "s3-secret" not in rest and "wandb-secret" not in rest
    assert all(base64.b64encode(value.encode()).decode() not in rest for value in KEYS.values())
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "uid"


def test_it_can_do_nothing_beside_training() -> None:
    spec = pod()
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_way_to_the_tracker_is_open_for_jobs_that_log_there_alone() -> None:
    assert not any(each["kind"] == "NetworkPolicy" for each in objects())
    offline = replace(SPEC, document={**DOCUMENT, "wandb": {**RUN, "mode": "offline"}})
    assert not any(each["kind"] == "NetworkPolicy" for each in objects(offline))
    (policy,) = (each for each in objects(TRACKED) if each["kind"] == "NetworkPolicy")
    assert policy["spec"]["podSelector"] == {"matchLabels": {"hearth.dev/job-uid": SPEC.job_uid}}
    assert policy["spec"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": 443}]


@pytest.mark.parametrize(
    ("hard", "used", "said"),
    [
        ({"requests.nvidia.com/gpu": "2"}, {}, ""),
        (
            {"requests.nvidia.com/gpu": "2"},
            {"requests.nvidia.com/gpu": "1"},
            "exceeded quota: account, requested: requests.nvidia.com/gpu=2, "
            "used: requests.nvidia.com/gpu=1, limited: requests.nvidia.com/gpu=2",
        ),
        ({"pods": "10", "cpu": "7500m"}, {}, "exceeded quota: account, requested: cpu=8, used: cpu=0"),
        (
            {"limits.memory": "40Gi"},
            {"limits.memory": "9Gi"},
            "exceeded quota: account, requested: ",
        ),
        ({"services": "0"}, {"services": "3"}, ""),
    ],
)
def test_what_a_quota_lacks_is_told_as_the_cluster_tells_it(
    hard: dict[str, str], used: dict[str, str], said: str
) -> None:
    quota = {"metadata": {"name": "account"}, "spec": {"hard": hard}, "status": {"used": used}}
    found = shortage(quota, pod()["containers"][0]["resources"])
    assert found.startswith(said) and bool(found) == bool(said)
