"""`kubectl apply -k` and `helm install` on a real API server: the platform comes up and goes again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.embedded import Services
from tests.conftest import admin_connection, database_address
from tests.kubernetes.chart import Helm
from tests.kubernetes.conftest import LABEL, RUN
from tests.kubernetes.install import K8S, NAMESPACE, copied, with_secrets
from tests.kubernetes.parts_kubelet import PartsKubelet
from tests.kubernetes.story import Kubectl
from workers.runtimes.kubernetes.cluster import Cluster, Kind

pytestmark = pytest.mark.kubernetes

NODE = f"install-{RUN}"
SECONDS = 120.0
LOOK_SECONDS = 0.2
OLDER = {
    "HorizontalPodAutoscaler": ("autoscaling", "v2", "v2beta2"),
    "PodDisruptionBudget": ("policy", "v1", "v1beta1"),
}
"""Kinds of which clusters before 1.23 have a version that differs in its name only."""
PARTS = {f"hearth-{part}" for part in ("api", "gateway", "worker", "beat")}


@pytest.fixture
def secrets(platform_services: Services) -> Iterator[dict[str, str]]:
    """An empty database, and the other stores; what an operator writes into secrets.env."""
    name = f"install_{uuid.uuid4().hex[:12]}"
    with admin_connection(platform_services) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield {
        "HEARTH_DATABASE_URL": database_address(platform_services, name),
        "HEARTH_REDIS_URL": platform_services.valkey.url.rpartition("/")[0] + "/7",
        "HEARTH_S3_ENDPOINT": platform_services.seaweedfs.endpoint,
        "HEARTH_S3_ACCESS_KEY": platform_services.seaweedfs.access_key,
        "HEARTH_S3_SECRET_KEY": platform_services.seaweedfs.secret_key,
        "HEARTH_S3_BUCKET": name.replace("_", "-"),
    }
    with admin_connection(platform_services) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def overlay(kubectl: Kubectl, tmp_path: Path, secrets: dict[str, str]) -> Iterator[Callable[[str], Path]]:
    """An overlay of the tests' own over one of Hearth's: for the virtual node, and small."""

    own = tmp_path / "k8s" / "overlays" / "tests"

    def make(name: str) -> Path:
        assert kubectl.get("deployments", NAMESPACE) == [], (
            "a Hearth that is here already would be taken away"
        )
        folder = with_secrets(name, tmp_path, secrets)
        settings = folder / "settings.env"
        public = f"HEARTH_S3_PUBLIC_ENDPOINT={secrets['HEARTH_S3_ENDPOINT']}"
        lines = [line for line in settings.read_text().splitlines() if "PUBLIC_ENDPOINT" not in line]
        settings.write_text("\n".join([*lines, public]))
        own.mkdir()
        document = {"resources": [f"../{name}"], "patches": list(patches(offered(kubectl)))}
        (own / "kustomization.yaml").write_text(yaml.safe_dump(document))
        return own

    yield make
    if own.exists():
        kubectl("delete", "-k", str(own), "--ignore-not-found")


def patches(versions: set[str]) -> Iterator[dict[str, Any]]:
    here = [
        {"op": "add", "path": "/spec/template/spec/nodeSelector", "value": {LABEL: f"{RUN}-install"}},
        {
            "op": "add",
            "path": "/spec/template/spec/tolerations",
            "value": [{"key": LABEL, "operator": "Exists"}],
        },
    ]
    for kind in ("Deployment", "StatefulSet", "Job"):
        yield {"target": {"kind": kind}, "patch": json.dumps(here)}
    one = [{"op": "replace", "path": "/spec/minReplicas", "value": 1}]
    yield {"target": {"kind": "HorizontalPodAutoscaler"}, "patch": json.dumps(one)}
    one = [{"op": "replace", "path": "/spec/replicas", "value": 1}]
    yield {"target": {"kind": "Deployment", "name": "hearth-worker"}, "patch": json.dumps(one)}
    for kind, (group, newest, older) in OLDER.items():
        if f"{group}/{newest}" not in versions:
            change = [{"op": "replace", "path": "/apiVersion", "value": f"{group}/{older}"}]
            yield {"target": {"kind": kind}, "patch": json.dumps(change)}


@pytest.fixture
def chart(node: PartsKubelet, kubectl: Kubectl, tmp_path: Path, secrets: dict[str, str]) -> Iterator[Path]:
    """A copy as clusters of this version take it; beside it values for the virtual node, and small."""
    assert kubectl.get("deployments", NAMESPACE) == [], "a Hearth that is here already would be taken away"
    folder = copied(tmp_path) / "chart"
    for group, newest, older in OLDER.values():
        if f"{group}/{newest}" not in offered(kubectl):
            replace_in(folder / "templates" / "scaling.yaml", f"{group}/{newest}", f"{group}/{older}")
            replace_in(folder / "Chart.yaml", "kubeVersion:", "# kubeVersion:")
    values = {
        "image": {"repository": "registry.example/hearth"},
        "engineImage": {"repository": "registry.example/hearth-engine"},
        "settings": {"HEARTH_S3_PUBLIC_ENDPOINT": secrets["HEARTH_S3_ENDPOINT"]},
        "nodeSelector": {LABEL: f"{RUN}-install"},
        "tolerations": [{"key": LABEL, "operator": "Exists"}],
        "gateway": {"autoscaling": {"minReplicas": 1}},
        "api": {"autoscaling": {"minReplicas": 1}},
        "worker": {"replicas": 1},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    yield folder
    kubectl("delete", "-f", str(K8S / "base" / "worker-access.yaml"), "--ignore-not-found")


def replace_in(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


def offered(kubectl: Kubectl) -> set[str]:
    return set(kubectl("api-versions").split())


@pytest.fixture
def node(cluster: Cluster, kubeconfig: Path, kubectl: Kubectl, tmp_path: Path) -> Iterator[PartsKubelet]:
    """Its pods reach the API server with the workers' rights and no others."""
    images = [f"registry.example/{name}:0.1.0" for name in ("hearth", "hearth-engine")]
    file = tmp_path / "kubeconfig"
    (folder := tmp_path / "nodes").mkdir()
    kubelet = PartsKubelet(cluster, images, folder, {"KUBECONFIG": str(file)})
    kubectl("apply", "-f", str(K8S / "base" / "worker-access.yaml"))
    document = yaml.safe_load(kubeconfig.read_text())
    for user in document["users"]:
        user["user"] = {"token": token_of_workers(cluster)}
    file.write_text(json.dumps(document))
    kubelet.start()
    kubelet.add_node(NODE, {LABEL: f"{RUN}-install"}, taint=LABEL)
    yield kubelet
    kubelet.close()


def token_of_workers(cluster: Cluster) -> str:
    kind = Kind("v1", "TokenRequest", "serviceaccounts/hearth-worker/token")
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return str(
        cluster.create({**asked, "metadata": {"namespace": NAMESPACE, "name": ""}}, kind)["status"]["token"]
    )


@pytest.mark.timeout(240)
def test_one_command_installs_a_platform_that_answers_and_one_takes_it_away(
    overlay: Callable[[str], Path], node: PartsKubelet, kubectl: Kubectl, tmp_path: Path
) -> None:
    installed = overlay("external")
    kubectl("apply", "-k", str(installed))
    until(lambda: ready_parts(kubectl) == PARTS)
    kubectl("diff", "-k", str(installed))
    firectl = command_line(node, first_key(node, kubectl))
    assert "NAME" in firectl("list", "models")
    rows = tmp_path / "rows.jsonl"
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    rows.write_text(json.dumps({"messages": said}) + "\n")
    firectl("create", "dataset", "greetings", str(rows))
    until(lambda: json.loads(firectl("get", "dataset", "greetings", "-o", "json"))["state"] == "READY")
    kubectl("delete", "-k", str(installed), "--wait")
    assert remains(kubectl, installed) == ""


@pytest.mark.timeout(240)
def test_the_trial_brings_its_own_stores_and_its_parts_wait_for_them(
    overlay: Callable[[str], Path], node: PartsKubelet, kubectl: Kubectl
) -> None:
    installed = overlay("trial")
    kubectl("apply", "-k", str(installed))
    kubectl("diff", "-k", str(installed))
    until(lambda: states(kubectl).keys() >= set(PARTS_AND_STORES))
    claims = kubectl.get("persistentvolumeclaims", NAMESPACE)
    assert {each["metadata"]["name"] for each in claims} == {f"data-{name}-0" for name in STORES}
    assert states(kubectl)["api"] == {"Pending"}
    kubectl("delete", "-k", str(installed), "--wait")
    assert remains(kubectl, installed) == ""


@pytest.mark.timeout(240)
def test_helm_installs_changes_and_takes_away_and_replaces_nothing_before_the_migration_ends(
    chart: Path, helm: Helm, kubectl: Kubectl, secrets: dict[str, str], tmp_path: Path
) -> None:
    there = ("--kubeconfig", str(kubectl.kubeconfig), "--namespace", NAMESPACE)
    what = ("hearth", str(chart), "--values", str(tmp_path / "values.yaml"), *there)
    first = ("install", *what, "--take-ownership")  # the node has made the workers' account already
    assert f"the namespace {NAMESPACE} has no Secret hearth-secrets: make it first" in helm(*first, expect=1)
    (file := tmp_path / "secrets.env").write_text("".join(f"{name}={secrets[name]}\n" for name in secrets))
    kubectl("create", "secret", "generic", "hearth-secrets", "--from-env-file", str(file), "-n", NAMESPACE)
    assert "hearth admin bootstrap" in helm(*first)
    until(lambda: ready_parts(kubectl) == PARTS)
    before = templates(kubectl)
    wrong = ("--set", "settings.HEARTH_LOG_FORMAT=loud", "--timeout", "1s")
    assert "pre-upgrade hooks failed" in helm("upgrade", *what, *wrong, expect=1)
    assert templates(kubectl) == before
    helm("upgrade", *what, "--set", "worker.disruptionBudget.maxUnavailable=2")
    (migration,) = json.loads(helm("status", "hearth", *there, "-o", "json"))["hooks"]
    assert migration["last_run"]["phase"] == "Succeeded"
    budgets = kubectl.get("poddisruptionbudgets", NAMESPACE)
    assert {each["metadata"]["name"]: each["spec"]["maxUnavailable"] for each in budgets} == BUDGETS
    assert templates(kubectl) == before
    (file := tmp_path / "made.yaml").write_text(helm("get", "manifest", "hearth", *there))
    helm("uninstall", "hearth", *there, "--wait")
    assert kubectl("get", "-f", str(file), "-n", NAMESPACE, "--ignore-not-found") == ""


BUDGETS = {"hearth-api": 1, "hearth-gateway": 1, "hearth-worker": 2}


def templates(kubectl: Kubectl) -> dict[str, Any]:
    """Of the pods of each part: as long as one is the same, none of them is replaced."""
    return {
        each["metadata"]["name"]: each["spec"]["template"] for each in kubectl.get("deployments", NAMESPACE)
    }


STORES = ("postgres", "valkey", "seaweedfs")
PARTS_AND_STORES = ("api", "gateway", "worker", "beat", "migrate", "database", "broker", "object-store")


def states(kubectl: Kubectl) -> dict[str, set[str]]:
    """The phases of the pods of each component."""
    found: dict[str, set[str]] = {}
    for pod in kubectl.get("pods", NAMESPACE):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        found.setdefault(component, set()).add(pod["status"]["phase"])
    return found


def ready_parts(kubectl: Kubectl) -> set[str]:
    """Those of which every copy that is wanted is ready."""
    return {
        each["metadata"]["name"]
        for each in kubectl.get("deployments", NAMESPACE)
        if each["status"].get("readyReplicas") == each["spec"]["replicas"]
    }


def first_key(node: PartsKubelet, kubectl: Kubectl) -> str:
    """`kubectl exec deploy/hearth-api -- hearth admin bootstrap`: virtual nodes take no exec."""
    (api,) = kubectl.get("deployments", NAMESPACE, "-l", "app.kubernetes.io/component=api")
    (container,) = api["spec"]["template"]["spec"]["containers"]
    environment = node.environment(NAMESPACE, container)
    environment.pop("HEARTH_NODE_POOLS")
    command = [sys.executable, "-m", "launcher.main", "admin", "bootstrap"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def command_line(node: PartsKubelet, key: str) -> Callable[..., str]:
    """firectl, with the gateway's Service as its server."""
    variables = {
        "FIREWORKS_BASE_URL": f"http://{node.address_of(NAMESPACE, 'hearth-gateway')}",
        "FIREWORKS_API_KEY": key,
        "FIREWORKS_ACCOUNT_ID": "hearth",
    }

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "cli", *words]
        done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def remains(kubectl: Kubectl, overlay: Path) -> str:
    return kubectl("get", "-k", str(overlay), "--ignore-not-found")


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(LOOK_SECONDS)
