"""Workers with no more rights than `k8s/base/worker-access.yaml` gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME

from controlplane.resources.tables import ModelRow
from tests.kubernetes.road import Road, over_road
from tests.kubernetes.story import Kubectl, Story
from workers.runtimes.kubernetes.cluster import Cluster, Kind
from workers.runtimes.kubernetes.manifests import STORE_SECRET

ACCESS = Path(__file__).resolve().parents[2] / "k8s" / "base" / "worker-access.yaml"
TOKEN = {
    "apiVersion": "authentication.k8s.io/v1",
    "kind": "TokenRequest",
    "spec": {},
    "metadata": {"name": ""},
}


def test_of_the_secrets_only_the_object_stores_key_can_be_patched_and_so_be_read() -> None:
    role = next(each for each in yaml.safe_load_all(ACCESS.read_text()) if each["kind"] == "ClusterRole")
    rules = [rule for rule in role["rules"] if "secrets" in rule["resources"]]
    assert [(rule["verbs"], rule.get("resourceNames")) for rule in rules] == [
        (["create"], None),
        (["patch"], [STORE_SECRET]),
    ]


def test_the_objects_are_valid_by_the_published_schemas() -> None:
    for document in yaml.safe_load_all(ACCESS.read_text()):
        kubernetes_validate.validate(document, "1.37", strict=True)


@pytest.fixture
def token(kubectl: Kubectl, cluster: Cluster) -> str:
    """Of the workers' service account, as a pod of theirs has it."""
    kubectl("apply", "-f", str(ACCESS))
    of_it = Kind("v1", "TokenRequest", "serviceaccounts/hearth-worker/token")
    asked: dict[str, Any] = {**TOKEN, "metadata": {"namespace": "hearth"}}
    return str(cluster.create(asked, of_it)["status"]["token"])


@pytest.fixture
def road(kubeconfig: Path, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    file = tmp_path / "kubeconfig"
    road = over_road(kubeconfig, file)
    document = yaml.safe_load(file.read_text())
    document["users"] = [{"name": user["name"], "user": {"token": token}} for user in document["users"]]
    file.write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.delenv(SERVICE_HOST_ENV_NAME, raising=False)
    yield road
    road.close()


@pytest.mark.kubernetes
def test_it_is_enough_for_a_deployments_whole_life_and_for_nothing_else(
    deploy: Callable[..., Story], base: ModelRow, kubectl: Kubectl
) -> None:
    story = deploy(enable_addons=True)
    addon = story.add_addon(base, "addon")
    story.until_ready()
    story.until(lambda row: story.model(addon).state == "DEPLOYED")
    story.update(max_context_length=512)
    story.until_ready()
    story.change(state="UPDATING", desired_replica_count=0)
    story.until(lambda row: row.state == "READY")
    assert {reason for reason, _ in story.events()} >= {"Created", "Updated", "Scaled"}
    story.change(state="DELETING")
    story.until(lambda row: row.state == "DELETED")
    assert story.objects() == []
    as_worker = "--as=system:serviceaccount:hearth:hearth-worker"
    for words in (
        ("get", "secrets"),
        ("create", "pods/exec"),
        ("create", "pods"),
        ("get", "jobs"),
        ("patch", "secrets"),
    ):
        assert kubectl("auth", "can-i", *words, "-A", as_worker, expect=1).strip() == "no"
