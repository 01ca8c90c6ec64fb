"""A real API server with its scheduler and controllers, and nodes that are not there.

The cluster is one that the tests start themselves, or the one that HEARTH_TEST_KUBECONFIG names:
never the one of KUBECONFIG, which may well serve. Either way the pods of
the tests are kept on virtual nodes of this run by a selector and a taint.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME
from sqlalchemy import func

from controlplane.bootstrap import ensure_account
from controlplane.config import Settings
from controlplane.db import Database
from controlplane.node_pools import NodePools
from controlplane.resources.tables import DeploymentRow, ModelRow
from tests.kubernetes.chart import Helm, unpacked
from tests.kubernetes.cluster.control_plane import build, control_plane
from tests.kubernetes.kubelet import VirtualKubelet
from tests.kubernetes.road import Road, over_road
from tests.kubernetes.story import Kubectl, Story
from workers.context import WorkerContext
from workers.runtimes.engine_failure import ERROR_MARK
from workers.runtimes.kubernetes import KubernetesFleets
from workers.runtimes.kubernetes.cluster import NAMESPACE, Cluster
from workers.runtimes.kubernetes.pod import WEIGHTS_LOST

STAND_IN = ("python", str(Path(__file__).with_name("stand_in.py")))
LOST = {"code": "UNAVAILABLE", "reason": WEIGHTS_LOST, "message": "they made way", "retryable": True}
IMAGES = {
    "engine:stand-in": STAND_IN,
    "engine:newer": STAND_IN,
    "engine:crashing": (*STAND_IN, "crashing=torch.OutOfMemoryError: CUDA out of memory. Tried to allocate"),
    "engine:evicted": (*STAND_IN, f"crashing={ERROR_MARK}{json.dumps(LOST)}"),
    "engine:unstageable": (*STAND_IN, "unstageable=model.safetensors is missing from the object store"),
    "engine:real": ("python", "-m", "workers.runtimes.kubernetes.pod"),
}
RUN = uuid.uuid4().hex[:8]
LABEL = "hearth.dev/test-run"
GIB = 1024**3
CONFIG = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
}
FILES = {"model.safetensors": {"size": 16 * GIB, "sha256": "0" * 64}}


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if named := os.environ.get("HEARTH_TEST_KUBECONFIG"):
        yield Path(named)
        return
    with control_plane(build()) as plane:
        yield plane.kubeconfig


@pytest.fixture(scope="session")
def kubectl(kubeconfig: Path) -> Kubectl:
    return Kubectl(kubeconfig)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return unpacked(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def cluster(kubeconfig: Path) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        patch.delenv(SERVICE_HOST_ENV_NAME, raising=False)
        found = Cluster.of_context("", user_agent="tests")
    yield found
    found.close()


@pytest.fixture(scope="session")
def kubelet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualKubelet]:
    """Two nodes with four GPUs each, and one without."""
    kubelet = VirtualKubelet(cluster, IMAGES, tmp_path_factory.mktemp("nodes"))
    kubelet.start()
    for name, pool, gpus in (("gpu-1", "gpu", 4), ("gpu-2", "gpu", 4), ("cpu-1", "cpu", 0)):
        kubelet.add_node(f"{name}-{RUN}", {LABEL: f"{RUN}-{pool}"}, gpus=gpus, taint=LABEL)
    yield kubelet
    kubelet.close()


@pytest.fixture
def node_pools() -> dict[str, object]:
    """As an operator's file has them; tests change them before they ask for `fleets`."""
    on = {"tolerations": [{"key": LABEL, "operator": "Exists"}]}
    return {
        "image": "engine:stand-in",
        "namespacePrefix": f"test-{uuid.uuid4().hex[:6]}",
        "cache": {"hostPath": "/var/cache/weights"},
        "quota": {"requests.nvidia.com/gpu": "6"},
        "pools": [
            {
                "name": "h100",
                "acceleratorType": "NVIDIA_H100_80GB",
                "resource": "nvidia.com/gpu",
                "memoryGiB": 80,
                "perNode": 4,
                "cpu": "1",
                "hostMemory": "1Gi",
                "nodeSelector": {LABEL: f"{RUN}-gpu"},
                "region": "US_IOWA_1",
                **on,
            },
            {"name": "cpu", "cpu": "1", "hostMemory": "1Gi", "nodeSelector": {LABEL: f"{RUN}-cpu"}, **on},
        ],
    }


@pytest.fixture
def road(kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    """What workers reach the API server by; kubectl and the kubelet have another way."""
    road = over_road(kubeconfig, tmp_path / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv(SERVICE_HOST_ENV_NAME, raising=False)  # the tests may run in a pod of another one
    yield road
    road.close()


@pytest.fixture
def on_cluster(settings: Settings, node_pools: dict[str, object]) -> Settings:
    return settings.model_copy(update={"node_pools": NodePools.model_validate(node_pools)})


@pytest.fixture
def fleets(
    on_cluster: Settings, road: Road, kubelet: VirtualKubelet, cluster: Cluster
) -> Iterator[KubernetesFleets]:
    fleets = KubernetesFleets(on_cluster)
    yield fleets
    fleets.close()
    prefix = on_cluster.node_pools.namespace_prefix if on_cluster.node_pools else ""
    for each in cluster.list(NAMESPACE, {})["items"]:
        if each["metadata"]["name"].startswith(prefix):
            cluster.delete(NAMESPACE, None, each["metadata"]["name"])


@pytest.fixture
def context(on_cluster: Settings, fleets: KubernetesFleets) -> Iterator[WorkerContext]:
    database = Database(on_cluster.database_url, pool_size=4)
    yield WorkerContext(on_cluster, database, None, None, fleets)  # type: ignore[arg-type]
    database.close()


@pytest.fixture
def base(context: WorkerContext) -> ModelRow:
    """A model of 8 billion parameters, as far as rows go."""
    with context.db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        row = ModelRow(
            account_id="hearth",
            id="base",
            kind="HF_BASE_MODEL",
            state="READY",
            files=FILES,
            context_length=8192,
            facts={"config": CONFIG, "context_length": 8192},
        )
        session.add(row)
        return row


@pytest.fixture
def deploy(context: WorkerContext, base: ModelRow, kubectl: Kubectl) -> Callable[..., Story]:
    """Makes deployments as the API leaves them."""

    def make(deployment_id: str = "chat", account: str = "hearth", **values: object) -> Story:
        gpus = {"accelerator_type": "NVIDIA_H100_80GB", "accelerator_count": 1, "max_replica_count": 3}
        with context.db.session() as session:
            ensure_account(session, account, f"{account}@x.org")
            row = DeploymentRow(
                account_id=account,
                id=deployment_id,
                base_model_uid=base.uid,
                **{"state": "CREATING", "next_reconcile_at": func.now(), **gpus, **values},
            )
            session.add(row)
            session.flush()
            pools = context.settings.node_pools
            namespace = f"{pools.namespace_prefix if pools else ''}-{account}"
            return Story(context, row.uid, namespace, kubectl)

    return make
