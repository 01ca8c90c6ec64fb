"""Deployments on a real cluster, from their creation until nothing is left: what workers do, kubectl sees."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from controlplane.resources.tables import ModelRow
from tests.kubernetes.kubelet import VirtualKubelet
from tests.kubernetes.story import Kubectl, Story
from workers.runtimes.kubernetes.manifests import SERVING_GATE

pytestmark = pytest.mark.kubernetes

Deploy = Callable[..., Story]
OBJECTS = ["Deployment", "Pod", "PodDisruptionBudget", "ReplicaSet", "Service", "ServiceAccount"]


def test_a_deployment_comes_up_and_kubectl_shows_it_as_kubernetes_users_expect(deploy: Deploy) -> None:
    story = deploy(display_name="Chat", desired_replica_count=2, placement={"multi_region": "US"})
    assert story.until_ready().region == "US_IOWA_1"
    assert story.states() == ["READY", "READY"]
    # Its controller follows the pods in a pass of its own.
    story.until(lambda row: story.deployment()["status"].get("readyReplicas") == 2)
    found = story.deployment()
    assert (found["spec"]["replicas"], found["status"]["readyReplicas"]) == (2, 2)
    assert found["metadata"]["annotations"]["hearth.dev/name"] == "accounts/hearth/deployments/chat"
    assert found["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "hearth"
    addresses = {(pod["status"]["podIP"], 8000) for pod in story.pods()}
    assert {(row.host, row.port) for row in story.replicas()} == addresses
    assert all(row.accelerator_count == 1 for row in story.replicas())
    assert {reason for reason, _ in story.events()} >= {"Created"}


def test_it_is_scaled_up_and_down_and_to_zero_and_wakes(deploy: Deploy) -> None:
    story = deploy()
    story.until_ready()
    first = story.replicas()[0].uid
    story.change(state="UPDATING", desired_replica_count=3)
    story.until_ready()
    assert len(story.pods()) == 3
    assert first in {row.uid for row in story.replicas()}
    story.change(state="UPDATING", desired_replica_count=0)
    story.until(lambda row: row.state == "READY" and not story.replicas())
    assert (story.pods(), story.deployment()["spec"]["replicas"]) == ([], 0)
    story.change(state="UPDATING", desired_replica_count=1)
    story.until_ready()
    assert len(story.pods()) == 1
    assert ("Scaled", "accounts/hearth/deployments/chat wants 0 replicas instead of 3") in story.events()


def test_an_update_brings_new_replicas_up_before_it_takes_old_ones_away(deploy: Deploy) -> None:
    story = deploy()
    story.until_ready()
    old = story.replicas()[0].uid
    story.update(precision="BF16")
    served: list[int] = []

    def is_done(row: object) -> bool:
        served.append(story.states().count("READY"))
        rows = story.replicas()
        return story.row().state == "READY" and old not in {each.uid for each in rows}

    story.until(is_done)
    assert min(served) >= 1
    (pod,) = story.pods()
    assert '"precision": "BF16"' in pod["metadata"]["annotations"]["hearth.dev/engine"]
    assert pod["metadata"]["labels"]["hearth.dev/generation"] == "2"


def test_a_bad_update_says_why_and_leaves_the_old_replica_serving(
    deploy: Deploy, kubelet: VirtualKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = deploy()
    story.until_ready()
    monkeypatch.setitem(kubelet.images, "engine:stand-in", kubelet.images["engine:crashing"])
    story.update(max_context_length=4096)
    row = story.until(lambda row: row.consecutive_failures >= 2)
    assert "out of memory: the model does not fit into the memory of the GPU" in row.status_message
    assert (row.state, story.states().count("READY")) == ("UPDATING", 1)
    monkeypatch.undo()
    story.update(max_context_length=0)  # the way back is another update
    story.until_ready()
    assert story.states().count("READY") == 1


def test_a_deployment_that_never_came_up_fails_with_the_engines_own_words(
    deploy: Deploy, kubelet: VirtualKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kubelet.images, "engine:stand-in", kubelet.images["engine:unstageable"])
    story = deploy()
    row = story.until(lambda row: row.state == "FAILED")
    assert (row.status_code, row.reason) == ("NOT_FOUND", "FILE_MISSING")
    assert row.status_message == "model.safetensors is missing from the object store"
    story.until(lambda row: story.pods() == [])
    assert any(reason == "FILE_MISSING" for reason, _ in story.events())


def test_a_pod_whose_weights_made_way_before_its_engine_started_is_followed_by_another(
    deploy: Deploy, kubelet: VirtualKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kubelet.images, "engine:stand-in", kubelet.images["engine:evicted"])
    story = deploy()
    story.until(lambda row: story.pods())
    first = story.pods()[0]["metadata"]["uid"]
    row = story.until(lambda row: first not in {pod["metadata"]["uid"] for pod in story.pods()})
    assert row.state != "FAILED"
    monkeypatch.undo()
    story.until_ready()


def test_an_image_that_cannot_be_pulled_is_named(
    deploy: Deploy, kubelet: VirtualKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(kubelet.images, "engine:stand-in")
    story = deploy()
    row = story.until(lambda row: row.reason == "STARTING" and "image" in row.status_message)
    row = story.until(lambda row: "cannot be pulled" in row.status_message)
    assert 'pulling image "engine:stand-in"' in row.status_message
    assert story.states() == ["PENDING"]


def test_what_no_node_has_room_for_says_what_the_scheduler_says(deploy: Deploy) -> None:
    other = deploy("other", accelerator_count=4)
    other.until_ready()
    story = deploy(accelerator_count=0, long_prompt=True)  # two, where one would hold the model
    story.until_ready()
    assert [row.accelerator_count for row in story.replicas()] == [2]
    story.change(state="UPDATING", desired_replica_count=2)  # four and two of the quota's six are taken
    row = story.until(lambda row: "exceeded quota" in row.status_message)
    assert "requests.nvidia.com/gpu" in row.status_message
    assert story.states() == ["READY"]


def test_a_lack_of_gpus_is_told_and_made_good_when_there_are_some(
    deploy: Deploy, kubelet: VirtualKubelet
) -> None:
    first, second = (
        deploy("first", accelerator_count=4),
        deploy("second", account="other", accelerator_count=4),
    )
    first.until_ready()
    second.until_ready()
    story = deploy("third", account="third", accelerator_count=1)
    row = story.until(lambda row: "no node has room" in row.status_message)
    assert "Insufficient nvidia.com/gpu" in row.status_message
    assert story.replicas()[0].reason == "Unschedulable"
    first.change(state="UPDATING", desired_replica_count=0)
    first.until(lambda row: not first.pods())
    story.until_ready()


def test_deleting_leaves_nothing(deploy: Deploy) -> None:
    story = deploy(desired_replica_count=2)
    story.until_ready()
    assert sorted(set(story.objects())) == OBJECTS
    story.change(state="DELETING")
    story.until(lambda row: row.state == "DELETED")
    assert (story.objects(), story.replicas()) == ([], [])


def test_addons_are_proven_on_every_replica_before_the_cluster_counts_it_as_ready(
    deploy: Deploy, base: ModelRow
) -> None:
    story = deploy(enable_addons=True, desired_replica_count=2)
    addon = story.add_addon(base, "addon")
    story.until_ready()
    story.until(lambda row: story.model(addon).state == "DEPLOYED")
    # The node's agent follows the gate in a pass of its own.
    story.until(lambda row: all(_statuses(pod)["Ready"] == "True" for pod in story.pods()))
    for pod in story.pods():
        assert _statuses(pod)[SERVING_GATE] == "True"
        assert [each["name"] for each in pod["spec"]["containers"]] == ["engine", "addons"]


def test_an_engine_that_dies_is_started_again_and_gets_its_addons_again(
    deploy: Deploy, base: ModelRow, kubelet: VirtualKubelet
) -> None:
    story = deploy(enable_addons=True)
    addon = story.add_addon(base, "addon")
    story.until_ready()
    story.until(lambda row: story.model(addon).state == "DEPLOYED")
    (pod,), before = story.pods(), story.replicas()[0].uid
    kubelet.container(pod["metadata"]["uid"]).kill()
    row = story.until(lambda row: row.consecutive_failures == 1)
    assert "SIGKILL" in row.status_message
    story.until_ready()
    story.until(lambda row: story.model(addon).state == "DEPLOYED")
    serving = [row for row in story.replicas() if row.state == "READY"]
    assert [row.uid for row in serving] != [before]
    (same,) = story.pods()
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]


def test_a_node_that_dies_takes_its_replica_out_of_service_and_another_one_comes(
    deploy: Deploy, kubelet: VirtualKubelet
) -> None:
    story = deploy()
    story.until_ready()
    (pod,) = story.pods()
    lost, node = story.replicas()[0].uid, pod["spec"]["nodeName"]
    kubelet.crash_node(node)
    story.until(lambda row: story.states() != ["READY"])
    story.until(lambda row: "READY" in story.states())
    assert lost not in {row.uid for row in story.replicas() if row.state == "READY"}
    kubelet.replace_node(node)
    story.until(lambda row: row.state == "READY" and len(story.replicas()) == 1)


def test_a_node_that_is_drained_lets_its_replica_finish_its_answer_and_another_one_comes(
    deploy: Deploy, kubectl: Kubectl
) -> None:
    story = deploy()
    story.until_ready()
    (pod,), (replica,) = story.pods(), story.replicas()
    node, url = pod["spec"]["nodeName"], f"http://{replica.host}:{replica.port}/v1/chat/completions"
    asked = {"model": replica.served_name, "messages": [], "max_tokens": 200, "stream": True}
    drain = ("drain", node, f"--pod-selector=hearth.dev/deployment-uid={story.uid}", "--delete-emptydir-data")
    try:
        with ThreadPoolExecutor(1) as aside, httpx.stream("POST", url, json=asked, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            drained = aside.submit(kubectl, *drain)
            assert list(lines)[-2:] == ["data: [DONE]", ""]
            assert "evicted" in drained.result()
        story.until(lambda row: row.state == "READY" and story.states() == ["READY"])
        assert [each["spec"]["nodeName"] for each in story.pods()] != [node]
    finally:
        kubectl("uncordon", node)


def _statuses(pod: dict[str, Any]) -> dict[str, str]:
    return {each["type"]: each["status"] for each in pod["status"]["conditions"]}
