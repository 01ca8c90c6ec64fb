"""Fine-tuning jobs on a real cluster, with the real trainer and two workers, who have no right too many."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func

from controlplane.bootstrap import ensure_account
from controlplane.config import Settings
from controlplane.db import Database
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow
from controlplane.storage import ObjectStore
from tests.kubernetes.job_story import JobStory
from tests.kubernetes.kubelet import VirtualKubelet
from tests.kubernetes.road import Road
from tests.kubernetes.story import Kubectl
from tests.kubernetes.test_access import road, token
from tests.reconcile.trainers import SETTINGS
from tests.training.conftest import tiny_model, tokenizer
from tests.training.test_cancel_and_resume import as_lines, upload
from workers.context import WorkerContext
from workers.reconcile.datasets import reconcile_dataset
from workers.reconcile.models import reconcile_model
from workers.runtimes.kubernetes import KubernetesFleets, KubernetesTrainers, Sites
from workers.runtimes.local import LocalRuntime

__all__ = ["road", "tiny_model", "token", "tokenizer"]

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

Train = Callable[..., JobStory]
COLOURS = ["red", "green", "blue", "white"]
TRAINED = {**SETTINGS, "learning_rate": 2e-2, "batch_size": 4, "cutoff_length": 64}
LONG = {**TRAINED, "epochs": 100.0, "batch_size": 1}
"""Longer than any test takes."""
WENT_ON = "going on from the checkpoint of step"


@pytest.fixture
def node_pools(node_pools: dict[str, Any]) -> dict[str, Any]:
    node_pools["pools"][0]["perNode"] = 8  # of which no node has more than four
    return {**node_pools, "trainingPools": ["cpu"]}


@pytest.fixture
def on_gpus(node_pools: dict[str, Any]) -> None:
    node_pools["trainingPools"] = ["h100"]


@pytest.fixture
def on_cluster(on_cluster: Settings) -> Settings:
    return on_cluster.model_copy(update={"checkpoint_seconds": 1.0, "max_trainers": 3})


@pytest.fixture
def workers(
    on_cluster: Settings, fleets: KubernetesFleets, object_store: ObjectStore
) -> Iterator[list[WorkerContext]]:
    """Two, with nothing in common but the database and the cluster. `fleets` clears away the namespaces."""
    database, sites = Database(on_cluster.database_url, pool_size=4), [Sites.from_settings(on_cluster)]
    sites.append(Sites.from_settings(on_cluster))
    local = LocalRuntime(on_cluster)
    yield [
        WorkerContext(on_cluster, database, object_store, local, None, KubernetesTrainers(on_cluster, each))
        for each in sites
    ]
    for each in sites:
        each.close()
    database.close()


@pytest.fixture
def train(workers: list[WorkerContext], tiny_model: Path, kubectl: Kubectl) -> Train:
    """Makes jobs as the API leaves them, over a base and a dataset that were checked."""
    context = workers[0]
    with context.db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
    talk = [
        {
            "messages": [
                {"role": "user", "content": f"the colour of sky {i % 4}"},
                {"role": "assistant", "content": COLOURS[i % 4]},
            ]
        }
        for i in range(48)
    ]
    base, data = ModelRow(id="base", kind="HF_BASE_MODEL"), DatasetRow(id="talk")
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    upload(context.db, context.store, base, files)
    upload(context.db, context.store, data, {"rows.jsonl": as_lines(talk)})
    reconcile_model(context, base.uid)
    reconcile_dataset(context, data.uid)

    def make(job_id: str = "job", settings: dict[str, Any] = LONG) -> JobStory:
        with context.db.session() as session:
            row = FineTuningJobRow(
                account_id="hearth",
                id=job_id,
                kind="conversation",
                model_id=f"{job_id}-model",
                base_model_uid=base.uid,
                dataset_uid=data.uid,
                settings=settings,
                state="CREATING",
                next_reconcile_at=func.now(),
            )
            session.add(row)
            session.flush()
            pools = context.settings.node_pools
            namespace = f"{pools.namespace_prefix if pools else ''}-hearth"
            return JobStory(workers, row.uid, namespace, kubectl)

    return make


def test_a_job_goes_on_from_its_checkpoint_when_its_trainer_is_killed_and_when_its_node_dies(
    train: Train, kubelet: VirtualKubelet, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.runtimes.kubernetes.trainer_log.LOOK_SECONDS", 0.2)
    story = train(settings={**TRAINED, "epochs": 60.0})
    story.until_training(attempt=1)
    pod = story.pod()
    assert story.objects() == [f"{kind}/{name}" for kind, name in named(story, pod, attempt=1)]
    container = kubelet.container(pod["metadata"]["uid"], "trainer")
    os.killpg(container.pid, signal.SIGKILL)
    row = story.until(lambda row: row.attempt == 2)
    assert row.crashes == 1
    story.until_training(attempt=2)
    story.until(lambda row: WENT_ON in story.log())
    node = story.pod()["spec"]["nodeName"]
    kubelet.crash_node(node)
    row = story.until(lambda row: row.reason == "NODE_LOST")
    assert (row.attempt, row.state) == (2, "RUNNING")
    assert f"the node {node} does not answer" in row.status_message
    kubelet.replace_node(node)
    row = story.until(lambda row: row.state == "COMPLETED")
    assert (row.attempt, row.crashes) == (3, 1)
    assert story.log().count(WENT_ON) == 2
    model = model_of(story)
    assert model.state == "READY"
    assert object_store.head(model.prefix + "adapter_model.safetensors")
    story.until(lambda row: story.objects() == [])


def named(story: JobStory, pod: Any, attempt: int) -> list[tuple[str, str]]:
    name = f"t-job-{str(story.uid)[:8]}-{attempt}"
    return [("Job", name), ("Pod", pod["metadata"]["name"]), ("Secret", name)]


def model_of(story: JobStory) -> ModelRow:
    with story.workers[0].db.session() as session:
        return session.get_one(ModelRow, story.row().output_model_uid)


def test_a_pod_deleted_by_hand_is_nobodys_fault_and_a_cancel_is_over_in_ten_seconds(
    train: Train, kubectl: Kubectl
) -> None:
    story = train()
    story.until_training(attempt=1)
    pod = story.pod()
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert not any("serviceAccount" in json.dumps(volume) for volume in pod["spec"]["volumes"])
    kubectl("delete", "pod", pod["metadata"]["name"], "-n", story.namespace, "--wait=false")
    row = story.until_training(attempt=2)
    assert row.crashes == 0
    story.until(lambda row: WENT_ON in story.log())
    shown = kubectl("get", "jobs,pods", "-n", story.namespace)
    assert f"job.batch/t-job-{str(story.uid)[:8]}-2" in shown
    began = time.monotonic()
    story.change(state="CANCELLING", next_reconcile_at=func.now())
    story.until(lambda row: row.state == "CANCELLED")
    assert time.monotonic() - began < 10
    story.until(lambda row: story.objects() == [])


def test_what_no_node_has_room_for_says_so_in_the_schedulers_words_and_costs_no_request(
    on_gpus: None, train: Train, workers: list[WorkerContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    story = train(settings={**LONG, "batch_size": 5, "accelerator_count": 5})
    row = story.until(lambda row: "no node has room" in row.status_message)
    assert (row.state, row.reason) == ("RUNNING", "NO_CAPACITY")
    assert "Insufficient nvidia.com/gpu" in row.status_message
    asked = [spied(worker, monkeypatch) for worker in workers]
    for _ in range(20):
        story.change(next_reconcile_at=func.now())
        story.round()
    assert asked == [[], []]
    story.change(state="DELETING", next_reconcile_at=func.now())
    gone(story)


def test_what_the_quota_forbids_is_told_and_no_job_is_made(on_gpus: None, train: Train) -> None:
    story = train(settings={**LONG, "batch_size": 7, "accelerator_count": 7})
    said = "exceeded quota: account, requested: requests.nvidia.com/gpu=7, used: requests.nvidia.com/gpu=0"
    row = story.until(lambda row: "exceeded quota" in row.status_message)
    assert (row.reason, row.status_message.startswith(said)) == ("NO_CAPACITY", True)
    assert story.objects() == []


def test_while_the_api_server_is_away_a_job_stays_what_it_is_and_a_stray_is_ended_when_it_is_back(
    on_gpus: None, train: Train, road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.runtimes.kubernetes.view.STALE_SECONDS", 0.5)
    story = train(settings={**LONG, "batch_size": 5, "accelerator_count": 5})
    story.until(lambda row: "no node has room" in row.status_message)
    road.cut()
    row = story.until(lambda row: row.reason == "CLUSTER_UNAVAILABLE")
    assert row.state == "RUNNING"
    road.mend()
    row = story.until(lambda row: "no node has room" in row.status_message)
    assert row.attempt == 1
    with story.workers[0].db.session() as session:
        session.execute(delete(FineTuningJobRow).where(FineTuningJobRow.uid == story.uid))
    gone(story)


def gone(story: JobStory) -> None:
    """Rounds until neither a row nor an object is left."""
    deadline = time.monotonic() + 60
    while story.objects() or story.is_known():
        assert time.monotonic() < deadline, story.objects()
        story.work()
        time.sleep(0.1)


def spied(worker: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What it asks of the API server from now on, but for its watches."""
    asked: list[str] = []
    assert isinstance(worker.jobs, KubernetesTrainers)
    cluster = worker.jobs._sites.of("").cluster
    send = cluster._send

    def noted(method: str, path: str, query: Any, *rest: Any) -> Any:
        if "watch" not in query:
            asked.append(f"{method} {path}")
        return send(method, path, query, *rest)

    monkeypatch.setattr(cluster, "_send", noted)
    return asked
