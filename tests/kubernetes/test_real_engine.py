"""vLLM in pods: weights and an addon from the object store, probes, and an answer at the pod's address."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.bootstrap import ensure_account
from controlplane.resources.tables import DeployedModelRow, ModelRow
from controlplane.storage import ObjectStore
from tests.kubernetes.kubelet import VirtualKubelet
from tests.kubernetes.story import Story
from tests.runtimes.test_engine import make_adapter, make_model
from workers.context import WorkerContext

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

START_SECONDS = 400.0


@pytest.fixture
def node_pools(node_pools: dict[str, Any]) -> dict[str, Any]:
    """Nodes without GPUs, with the engine's own image."""
    _, cpu = node_pools["pools"]
    return {**node_pools, "image": "engine:real", "quota": {}, "pools": [cpu]}


@pytest.fixture
def base(context: WorkerContext, object_store: ObjectStore, tmp_path: Path) -> ModelRow:
    make_model(tmp_path / "model")
    with context.db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        row = ModelRow(account_id="hearth", id="tiny", kind="HF_BASE_MODEL", state="READY", context_length=64)
        session.add(row)
        session.flush()
        row.files = upload(object_store, row.prefix, tmp_path / "model")
        return row


def upload(store: ObjectStore, prefix: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The files as a model's row has them."""
    files = {}
    for path in sorted(folder.iterdir()):
        store.put_file(prefix + path.name, path)
        files[path.name] = {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    return files


def test_a_pod_serves_a_base_and_its_addon_and_the_next_one_finds_the_weights_on_its_node(
    deploy: Callable[..., Story],
    base: ModelRow,
    object_store: ObjectStore,
    kubelet: VirtualKubelet,
    tmp_path: Path,
) -> None:
    story = deploy(accelerator_type="ACCELERATOR_TYPE_UNSPECIFIED", accelerator_count=0, enable_addons=True)
    addon = real_addon(story, base, object_store, tmp_path)
    story.until(lambda row: row.state == "READY", START_SECONDS)
    story.until(lambda row: story.model(addon).state == "DEPLOYED", START_SECONDS)
    (replica,), (pod,) = story.replicas(), story.pods()
    assert complete(replica, replica.served_name) != complete(replica, addon.model_uid.hex)
    for file in object_store.list(base.prefix):
        object_store.delete(file.key)  # a second pod has nowhere else to get them from than its node
    story.kubectl("delete", "pod", pod["metadata"]["name"], "-n", story.namespace, "--wait=false")
    story.until(lambda row: row.state == "READY" and replica.uid not in live(story), START_SECONDS)
    assert complete(story.replicas()[0], replica.served_name)


def real_addon(story: Story, base: ModelRow, store: ObjectStore, folder: Path) -> DeployedModelRow:
    make_adapter(folder / "addon", scale=1.0, rank=4)
    row = story.add_addon(base, "addon")
    with story.context.db.session() as session:
        model = session.get_one(ModelRow, row.model_uid)
        model.files = upload(store, model.prefix, folder / "addon")
    return row


def live(story: Story) -> set[object]:
    return {replica.uid for replica in story.replicas()}


def complete(replica: Any, model: str) -> str:
    """What the engine at a replica's recorded address says."""
    body = {"model": model, "prompt": "ab", "max_tokens": 8, "temperature": 0}
    url = f"http://{replica.host}:{replica.port}/v1/completions"
    answer = httpx.post(url, json=body, timeout=60, trust_env=False)
    return str(answer.raise_for_status().json()["choices"][0]["text"])
