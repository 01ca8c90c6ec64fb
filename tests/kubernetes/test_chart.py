"""The chart makes the objects of the overlay `external`, but for what is named here, and refuses mistakes."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import __version__
from controlplane.node_pools import NodePools
from tests.kubernetes.chart import CHART, EXAMPLE, Helm
from tests.kubernetes.install import WORKLOADS, Built, Document, with_secrets

PARTS = ("hearth-api", "hearth-gateway", "hearth-worker", "hearth-beat")
MONITORED = ("--set", "monitoring.enabled=true")

HASHED = re.compile(r"\b(hearth-(?:settings|secrets|node-pools))-[a-z0-9]{10}\b")
"""kustomize calls them after what they hold; in the chart a pod's annotation has that."""
MADE_BEFORE = {("Namespace", "hearth"), ("Secret", "hearth-secrets")}
"""The migration needs them, and comes before all that the chart makes."""
ADDED_LABELS = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}
"""Of objects, not of pods; kustomize adds some to what comes from the base."""
ADDED_ANNOTATIONS = {"checksum/settings", "checksum/node-pools"}
HOOK = {
    "helm.sh/hook": "pre-install,pre-upgrade",
    "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
}

Objects = dict[tuple[str, str], Document]


def of_the_overlay(folder: Path, monitored: bool) -> Objects:
    """As the chart has them."""
    overlay = with_secrets("external", folder)
    if monitored:
        file = overlay / "kustomization.yaml"
        file.write_text(file.read_text() + "components:\n  - ../../monitoring\n")
    built = Built.of(overlay)
    text = HASHED.sub(r"\1", yaml.safe_dump_all(built.documents))
    found = by_name(yaml.safe_load_all(text))
    job = found.pop(("Job", f"hearth-migrate-{__version__}"))
    found["Job", "hearth-migrate"] = before_the_rest(job, built)
    return {key: each for key, each in found.items() if key not in MADE_BEFORE}


def before_the_rest(job: Document, built: Built) -> Document:
    """helm removes the Job of the version before; ConfigMap and account are not there when this one runs."""
    changed = copy.deepcopy(job)
    changed["metadata"] |= {"name": "hearth-migrate", "annotations": HOOK}
    spec = changed["spec"]["template"]["spec"]
    assert spec.pop("serviceAccountName") == "hearth"
    (container,) = spec["containers"]
    assert container["envFrom"].pop(0) == {"configMapRef": {"name": "hearth-settings"}}
    settings = built.one("ConfigMap", "hearth-settings")["data"]
    container["env"] += [{"name": name, "value": value} for name, value in settings.items()]
    return plain(changed)


def by_name(documents: Iterable[Document]) -> Objects:
    return {(each["kind"], each["metadata"]["name"]): plain(each) for each in documents}


def plain(document: Document) -> Document:
    """Without what either tool adds, and with lists of named things in one order."""
    found: Document = in_order(document)
    metadata = found["metadata"]
    metadata.pop("namespace", None)
    labels = {name: value for name, value in metadata.pop("labels", {}).items() if name not in ADDED_LABELS}
    metadata["labels"] = labels
    if found["kind"] in WORKLOADS:
        pod = found["spec"]["template"]["metadata"]
        annotations = pod.pop("annotations", {})
        assert annotations.keys() <= ADDED_ANNOTATIONS
    if metadata["name"] == "hearth-node-pools":
        (text,) = found["data"].values()
        found["data"] = NodePools.model_validate(yaml.safe_load(text)).model_dump()
    return found


def in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: in_order(each) for key, each in value.items()}
    if isinstance(value, list):
        named = all(isinstance(each, dict) and "name" in each for each in value)
        return [in_order(each) for each in (sorted(value, key=lambda each: each["name"]) if named else value)]
    return value


@pytest.mark.parametrize("monitored", [False, True], ids=["alone", "with monitoring"])
def test_the_chart_makes_what_the_overlay_makes(helm: Helm, tmp_path: Path, monitored: bool) -> None:
    wanted = of_the_overlay(tmp_path, monitored)
    made = by_name(helm.made(*(MONITORED if monitored else ())).documents)
    assert made.keys() == wanted.keys()
    for key in wanted:
        assert made[key] == wanted[key], key


def test_with_no_more_than_the_images_it_makes_the_same_without_an_ingress(helm: Helm) -> None:
    images = [f"{name}.repository=registry.example/{of}" for name, of in IMAGES.items()]
    words = ("template", "hearth", str(CHART), "--namespace", "hearth", "--set", ",".join(images))
    made = by_name(yaml.safe_load_all(helm(*words)))
    wanted = by_name(helm.made().documents)
    del wanted["Ingress", "hearth"]
    assert made.keys() == wanted.keys()
    for key in wanted.keys() - CHANGED_BY_THE_EXAMPLE:
        assert made[key] == wanted[key], key


IMAGES = {"image": "hearth", "engineImage": "hearth-engine"}
CHANGED_BY_THE_EXAMPLE = {
    ("ConfigMap", "hearth-settings"),
    ("ConfigMap", "hearth-node-pools"),
    ("Job", "hearth-migrate"),
}


def test_every_object_says_what_it_belongs_to_and_who_made_it(helm: Helm) -> None:
    for each in helm.made(*MONITORED).documents:
        assert each["metadata"]["labels"].keys() >= ADDED_LABELS, each["metadata"]["name"]
        assert "namespace" not in each["metadata"]  # it is the release's


def test_the_linter_has_nothing_to_say(helm: Helm) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", "--strict", str(CHART), *EXAMPLE)


def test_the_chart_is_of_the_version_of_its_images() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_a_change_starts_anew_the_parts_that_read_it_and_no_others(helm: Helm) -> None:
    before = helm.made()
    assert started_anew(before, helm.made("--set-string", "settings.HEARTH_MAX_TRAINERS=3")) == set(PARTS)
    pools = helm.made("--set", "nodePools.cache.emptyDir=300Gi")
    assert started_anew(before, pools) == {"hearth-api", "hearth-worker"}


def started_anew(before: Built, after: Built) -> set[str]:
    found, now = dict(before.pods()), dict(after.pods())
    return {name for name in found if found[name] != now[name]} - {"hearth-migrate"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("gateway.replica=2", "at '/gateway': additional properties 'replica' not allowed"),
        ("gateway.replicas=two", "at '/gateway/replicas': got string, want integer"),
        ("gateway.service.type=Loadbalancer", "at '/gateway/service/type': value must be one of"),
        ("api.autoscaling.minReplicas=0", "at '/api/autoscaling/minReplicas': minimum: got 0, want 1"),
        ("api.autoscaling.minReplicas=9", "api.autoscaling: minReplicas 9 is more than maxReplicas 6"),
        ("api.resources.limits.memory=1 GiB", "at '/api/resources/limits/memory': '1 GiB' does not match"),
        ("worker.disruptionBudget.maxUnavailable=0", "maxUnavailable': minimum: got 0, want 1"),
        ("settings.HEARTH_LOG_FORMT=json", "at '/settings': additional properties 'HEARTH_LOG_FORMT'"),
        ("settings.HEARTH_MAX_TRAINERS=3", "at '/settings/HEARTH_MAX_TRAINERS': got number, want string"),
        ("settings.HEARTH_SECRET_KEYS=a", "at '/settings': additional properties 'HEARTH_SECRET_KEYS'"),
        ("settings.HEARTH_API_PORT=1", "at '/settings': additional properties 'HEARTH_API_PORT'"),
        ("secretSettings.HEARTH_S3_REGION.name=a", "at '/secretSettings/HEARTH_S3_REGION': missing property"),
        (
            "secretSettings.HEARTH_ADMIN_EMAIL.name=a,secretSettings.HEARTH_ADMIN_EMAIL.key=b",
            "HEARTH_ADMIN_EMAIL stands in settings and in secretSettings",
        ),
        ("nodePools.pool=a", "at '/nodePools': additional properties 'pool' not allowed"),
        ("nodePools.platformNamespace=a", "additional properties 'platformNamespace' not allowed"),
        ("image.tag=a:b", "at '/image/tag': 'a:b' does not match pattern"),
        ("image.repository=", "image.repository says where the image is"),
        ("engineImage.repository=", "engineImage.repository says where the image is"),
        ("ingress.host=", "ingress.host is the name that clients call Hearth by"),
        ("autoscaling.enabled=true", "additional properties 'autoscaling' not allowed"),
    ],
)
def test_a_value_that_cannot_be_honoured_is_refused_with_a_sentence(
    helm: Helm, value: str, said: str
) -> None:
    assert said in helm.refused("--set", value)


def test_a_namespace_that_could_be_an_accounts_is_refused(helm: Helm) -> None:
    said = helm.refused(namespace="hearth-prod")
    assert (
        "the namespace hearth-prod would be an account's: take one that does not begin with hearth-" in said
    )
    prefix = helm.made("--set", "nodePools.namespacePrefix=models", namespace="hearth-prod")
    assert prefix.one("ClusterRole", "hearth-worker-hearth-prod")


def test_a_cluster_that_is_too_old_is_refused(helm: Helm) -> None:
    said = helm.refused("--kube-version", "1.22.9")
    assert "chart requires kubeVersion: >=1.23.0-0 which is incompatible with Kubernetes v1.22.9" in said


def test_the_notes_tell_the_next_commands(helm: Helm) -> None:
    dry = ("install", "hearth", str(CHART), "--namespace", "models", "--dry-run=client", *EXAMPLE)
    notes = helm(*dry).partition("NOTES:")[2]
    assert "kubectl --namespace models rollout status deployment/hearth-gateway\n" in notes
    assert "kubectl --namespace models exec deploy/hearth-api -- hearth admin bootstrap\n" in notes
    assert "export FIREWORKS_BASE_URL=https://hearth.example FIREWORKS_API_KEY=fw_" in notes
    without = helm(*dry, "--set", "ingress.enabled=false").partition("NOTES:")[2]
    assert "port-forward service/hearth-gateway 8600:80 &" in without
