"""Whatever happens to its objects or to the API server, a deployment comes back to what was declared."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete

from controlplane.queue import RECONCILE_DEPLOYMENT
from controlplane.resources.tables import DeploymentRow, ReplicaRow
from tests.kubernetes.kubelet import VirtualKubelet
from tests.kubernetes.road import Road
from tests.kubernetes.story import LOOK_SECONDS, SECONDS, Kubectl, Story
from workers.context import WorkerContext
from workers.reconcile.deployments import reconcile_deployment
from workers.reconcile.fleets import stop_stray_fleets
from workers.runtimes.kubernetes import KubernetesFleets
from workers.watch import tell_news

pytestmark = pytest.mark.kubernetes

Deploy = Callable[..., Story]


def test_what_was_deleted_or_edited_by_hand_is_put_back(deploy: Deploy, kubectl: Kubectl) -> None:
    story = deploy()
    story.until_ready()
    name = story.deployment()["metadata"]["name"]
    kubectl("scale", "deployment", name, "-n", story.namespace, "--replicas=3")
    story.until(lambda row: story.deployment()["spec"]["replicas"] == 1)
    kubectl("set", "image", f"deployment/{name}", "engine=engine:newer", "-n", story.namespace)
    story.until(lambda row: image_of(story) == "engine:stand-in")
    for kind in ("service", "poddisruptionbudget", "serviceaccount"):
        kubectl("delete", kind, name, "-n", story.namespace)
    kubectl("delete", "networkpolicy", "account", "-n", story.namespace)
    story.until(lambda row: {"Service", "PodDisruptionBudget", "ServiceAccount"} <= set(story.objects()))
    story.until(lambda row: kubectl.get("networkpolicy", story.namespace))
    story.until_ready()


def test_a_deployment_that_lost_its_labels_is_found_again_and_serves_on(
    deploy: Deploy, kubectl: Kubectl
) -> None:
    story = deploy()
    story.until_ready()
    was, (pod,) = story.deployment()["metadata"], story.pods()
    kubectl("label", "deployment", was["name"], "-n", story.namespace, "app.kubernetes.io/managed-by-")
    story.until(lambda row: "app.kubernetes.io/managed-by" in story.deployment()["metadata"]["labels"])
    story.until_ready()
    (same,) = story.pods()
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]


def test_a_pod_deleted_by_hand_is_nobodys_failure(deploy: Deploy, kubectl: Kubectl) -> None:
    story = deploy()
    story.until_ready()
    (pod,), before = story.pods(), story.replicas()[0].uid
    kubectl("delete", "pod", pod["metadata"]["name"], "-n", story.namespace, "--wait=false")
    story.until(lambda row: row.state == "READY" and before not in {r.uid for r in story.replicas()})
    assert story.row().consecutive_failures == 0


def test_a_deployment_deleted_by_hand_is_made_again(deploy: Deploy, kubectl: Kubectl) -> None:
    story = deploy()
    story.until_ready()
    was = story.deployment()["metadata"]
    kubectl("delete", "deployment", was["name"], "-n", story.namespace)
    story.until(lambda row: row.state == "READY" and len(story.pods()) == 1)
    assert story.deployment()["metadata"]["uid"] != was["uid"]


def test_while_the_api_server_is_away_replicas_stay_as_they_are_and_the_reason_is_told(
    deploy: Deploy, road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.runtimes.kubernetes.view.STALE_SECONDS", 0.5)
    story = deploy()
    story.until_ready()
    road.cut()
    row = story.until(lambda row: row.reason == "CLUSTER_UNAVAILABLE")
    assert "the API server" in row.status_message
    assert story.states() == ["READY"]
    story.change(state="UPDATING", desired_replica_count=2)
    story.until(lambda row: row.reason == "CLUSTER_UNAVAILABLE")
    road.mend()
    story.until_ready()
    assert story.states() == ["READY", "READY"]


def test_a_settled_deployment_costs_the_api_server_nothing(
    deploy: Deploy, fleets: KubernetesFleets, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = deploy()
    story.until_ready()
    story.until(lambda row: story.deployment()["status"].get("readyReplicas") == 1)
    asked: list[str] = []
    cluster = fleets._sites.of("").cluster
    send = cluster._send
    monkeypatch.setattr(
        cluster,
        "_send",
        lambda method, path, *rest: asked.append(f"{method} {path}") or send(method, path, *rest),
    )
    for _ in range(20):
        story.round()
    assert [each for each in asked if "watch" not in each] == []


def test_two_workers_at_one_deployment_make_no_duplicates(deploy: Deploy, context: WorkerContext) -> None:
    story = deploy(desired_replica_count=2)
    second = KubernetesFleets(context.settings)
    try:
        other = WorkerContext(context.settings, context.db, context.store, context.runtime, second)

        def both(row: DeploymentRow) -> bool:
            story.change(next_reconcile_at=DeploymentRow.create_time)
            reconcile_deployment(other, story.uid)
            return row.state == "READY"

        story.until(both)
        assert (len(story.pods()), story.states()) == (2, ["READY", "READY"])
    finally:
        second.close()


def test_a_fleet_that_no_row_speaks_of_is_removed(
    deploy: Deploy, context: WorkerContext, fleets: KubernetesFleets
) -> None:
    story, stays = deploy(), deploy("stays")
    story.until_ready()
    stays.until_ready()
    with context.db.session() as session:
        session.execute(delete(ReplicaRow).where(ReplicaRow.deployment_uid == story.uid))
        session.execute(delete(DeploymentRow).where(DeploymentRow.uid == story.uid))

    def is_gone(row: DeploymentRow) -> bool:
        stop_stray_fleets(context, fleets)
        return story.objects() == []

    stays.until(is_gone)
    assert len(stays.pods()) == 1


def test_an_accounts_namespace_that_was_deleted_is_made_anew_with_all_that_is_wanted_there(
    deploy: Deploy, kubectl: Kubectl
) -> None:
    story = deploy()
    story.until_ready()
    (before,) = story.pods()
    kubectl("delete", "namespace", story.namespace, "--wait=false")
    story.until(lambda row: before["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in story.pods()})
    story.until_ready()
    story.until(lambda row: len(story.pods()) == 1)
    kinds = ("resourcequota", "networkpolicy", "secret")
    assert all(kubectl.get(kind, story.namespace) for kind in kinds)


def test_every_account_has_a_namespace_that_keeps_it_to_itself(deploy: Deploy, kubectl: Kubectl) -> None:
    one, other = deploy(), deploy(account="other")
    one.until_ready()
    other.until_ready()
    assert one.namespace != other.namespace
    for story in (one, other):
        (policy,) = kubectl.get("networkpolicy", story.namespace)
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        (quota,) = kubectl.get("resourcequota", story.namespace)
        assert quota["spec"]["hard"] == {"requests.nvidia.com/gpu": "6"}
        (pod,) = story.pods()
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert all("serviceAccountToken" not in json.dumps(volume) for volume in pod["spec"]["volumes"])
        for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            names = {entry["name"] for entry in container["env"]}
            assert not any("SECRET" in name for name in names)
        engine = pod["spec"]["containers"][0]
        assert "envFrom" not in engine  # only what brings weights can reach the object store


def image_of(story: Story) -> str:
    return str(story.deployment()["spec"]["template"]["spec"]["containers"][0]["image"])


def test_what_changes_on_the_cluster_is_looked_at_at_once(
    deploy: Deploy, kubelet: VirtualKubelet, fleets: KubernetesFleets, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, object]] = []
    monkeypatch.setattr("workers.watch.enqueue", lambda settings, task, uid: told.append((task, uid)))
    story = deploy()
    story.until_ready()
    (pod,) = story.pods()
    fleets.take_news()  # What came before it was ready.
    told.clear()
    story.change(next_reconcile_at=datetime.now(UTC) + timedelta(hours=1))
    kubelet.container(pod["metadata"]["uid"]).kill()
    deadline = time.monotonic() + SECONDS
    while (RECONCILE_DEPLOYMENT, story.uid) not in told:
        assert time.monotonic() < deadline
        tell_news(story.context, fleets.take_news())
        time.sleep(LOOK_SECONDS)
    due = story.row().next_reconcile_at
    assert due is not None
    assert due <= datetime.now(UTC)
