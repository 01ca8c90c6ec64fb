"""The acceptance run on a cluster: firectl and requests on one side, kubectl on the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.acceptance import DEPLOYMENT, Acceptance
from tests.e2e.conftest import Platform, wait_until
from tests.kubernetes.kubelet import VirtualKubelet
from tests.kubernetes.story import Kubectl

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

OBJECTS = ["Deployment", "Pod", "PodDisruptionBudget", "ReplicaSet", "Service", "ServiceAccount"]
KINDS = "deployments,replicasets,pods,services,serviceaccounts,poddisruptionbudgets"


class Cluster:
    """What kubectl shows of the account's namespace."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl, self._namespace = kubectl, namespace

    def replicas(self) -> set[str]:
        return {
            pod["metadata"]["name"] for pod in self._kubectl.get("pods", self._namespace) if is_ready(pod)
        }

    def wanted(self) -> int:
        return int(self._deployment()["spec"]["replicas"])

    def is_at_zero(self) -> bool:
        return self.wanted() == 0 and not self._kubectl.get("pods", self._namespace)

    def context_lengths(self) -> set[int | None]:
        pods = [pod for pod in self._kubectl.get("pods", self._namespace) if is_ready(pod)]
        specs = [json.loads(pod["metadata"]["annotations"]["hearth.dev/engine"]) for pod in pods]
        return {spec["replica"]["max_model_len"] for spec in specs}

    def remains(self) -> list[str]:
        found = self._kubectl.get(KINDS, self._namespace)
        return sorted(each["kind"] for each in found if each["metadata"]["name"] != "default")

    def check_as_created(self) -> None:
        assert sorted(set(self.remains())) == OBJECTS
        found = self._deployment()
        assert found["metadata"]["annotations"]["hearth.dev/name"].endswith(f"/deployments/{DEPLOYMENT}")
        assert found["spec"]["replicas"] == 1
        wait_until(lambda: self._deployment()["status"].get("readyReplicas") == 1)

    def _deployment(self) -> Any:
        (found,) = self._kubectl.get("deployments", self._namespace)
        return found


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions") or []}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


@pytest.fixture
def on_the_cluster(
    kubeconfig: Path, kubectl: Kubectl, kubelet: VirtualKubelet, node_pools: dict[str, Any], tmp_path: Path
) -> Iterator[Platform]:
    """A whole `hearth up` whose deployments run on the cluster."""
    pools = tmp_path / "pools.json"
    pools.write_text(json.dumps(node_pools))
    settings = {"HEARTH_NODE_POOLS": str(pools), "KUBECONFIG": str(kubeconfig)}
    platform = Platform(tmp_path / "data", settings)
    platform.start()
    yield platform
    stopped = platform.stop()
    namespace = f"{node_pools['namespacePrefix']}-{platform.account}"
    kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
    assert stopped == 0


def test_a_deployment_lives_as_its_operator_wants_from_its_creation_to_its_end(
    on_the_cluster: Platform, kubectl: Kubectl, node_pools: dict[str, Any], tmp_path: Path
) -> None:
    namespace = f"{node_pools['namespacePrefix']}-{on_the_cluster.account}"
    woken = Acceptance(on_the_cluster, Cluster(kubectl, namespace), tmp_path).run()
    print(f"woken after {woken:.2f} s")
