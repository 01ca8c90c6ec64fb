"""What `kubectl apply -k k8s/overlays/…` sends: valid, as closed as it says, fit for Hearth's settings."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import kubernetes_validate
import pytest
import typer
import yaml

from controlplane.config import Settings
from controlplane.node_pools import NodePools
from launcher.main import app as hearth
from tests.kubernetes.install import K8S, NAMESPACE, OVERLAYS, Built, Document, build, copied, with_secrets

PARTS = ("hearth-api", "hearth-gateway", "hearth-worker", "hearth-beat")
OTHERS = {"HOME", "FORWARDED_ALLOW_IPS", "PGDATA", "POSTGRES_DB", "POSTGRES_PASSWORD", "POSTGRES_USER"}
"""What is set beside Hearth's own settings."""
SPARE_SECONDS = 5
of_each = pytest.mark.parametrize("overlay", OVERLAYS)


@lru_cache
def built(overlay: str) -> Built:
    with TemporaryDirectory() as folder:
        return Built.of(with_secrets(overlay, Path(folder)))


@pytest.mark.parametrize(("overlay", "version"), [("external", "1.25"), ("trial", "1.37")])
def test_every_object_is_valid_by_the_published_schemas(overlay: str, version: str) -> None:
    for document in built(overlay).documents:
        kubernetes_validate.validate(document, version, strict=True)


@of_each
def test_everything_is_in_the_one_namespace_and_says_what_it_is_part_of(overlay: str) -> None:
    for each in built(overlay).documents:
        if each["kind"] not in ("Namespace", "ClusterRole", "ClusterRoleBinding"):
            assert each["metadata"]["namespace"] == NAMESPACE, each["metadata"]
        if each["kind"] in ("Deployment", "StatefulSet", "Job", "Service"):
            assert each["metadata"]["labels"].keys() >= NAMED, each["metadata"]
    for _, pod in built(overlay).pods():
        assert pod["metadata"]["labels"].keys() >= NAMED


NAMED = {f"app.kubernetes.io/{name}" for name in ("name", "component", "part-of")}


@of_each
def test_no_container_can_become_more_than_it_is(overlay: str) -> None:
    """The namespace is held to the strictest of the pod security standards."""
    (namespace,) = built(overlay).all("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in built(overlay).pods():
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any("hostPath" in volume for volume in pod["spec"].get("volumes", [])), name
    for name, container in built(overlay).containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


@of_each
def test_every_container_says_what_it_needs_and_what_runs_on_is_probed(overlay: str) -> None:
    for name, container in built(overlay).containers():
        resources = container["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}, name
        assert "memory" in resources["limits"], name
    for name, pod in built(overlay).pods():
        if pod["spec"].get("restartPolicy") != "OnFailure":
            for container in pod["spec"]["containers"]:
                assert container.keys() >= {"startupProbe", "livenessProbe", "readinessProbe"}, name


@of_each
def test_every_image_is_of_a_version(overlay: str) -> None:
    for name, container in built(overlay).containers():
        repository, _, tag = container["image"].rpartition(":")
        assert "/" in repository and tag not in ("", "latest"), name


@of_each
def test_only_workers_have_a_token_and_its_rights_are_those_of_worker_access(overlay: str) -> None:
    for name, pod in built(overlay).pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is (name == "hearth-worker"), name
        assert spec["enableServiceLinks"] is False, name
    access = list(yaml.safe_load_all((K8S / "base" / "worker-access.yaml").read_text()))
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        (wanted,) = [each for each in access if each["kind"] == kind]
        (found,) = built(overlay).all(kind)
        assert {**found, "metadata": wanted["metadata"]} == wanted
    assert built(overlay).all("Role", "RoleBinding") == []
    assert built(overlay).pod("hearth-worker")["spec"]["serviceAccountName"] == "hearth-worker"


@of_each
def test_the_parts_start_with_what_they_are_given(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {f"HEARTH_{name.upper()}" for name in Settings.model_fields}
    for name, container in built(overlay).containers():
        environment = built(overlay).environment(container)
        assert environment.keys() <= known | OTHERS, name
        if container["image"].rpartition(":")[0].startswith("registry.example/hearth"):
            check_settings(environment, monkeypatch)


def check_settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("HEARTH_NODE_POOLS", raising=False)
        assert Settings().s3_bucket == "hearth"


@of_each
def test_the_node_pools_are_ones_that_hearth_takes(overlay: str) -> None:
    (text,) = built(overlay).one("ConfigMap", "hearth-node-pools")["data"].values()
    pools = NodePools.model_validate(yaml.safe_load(text))
    assert pools.platform_namespace == NAMESPACE
    assert pools.image == container_of(overlay, "hearth-worker")["image"]
    for name in ("hearth-api", "hearth-worker"):
        container = container_of(overlay, name)
        path = built(overlay).environment(container)["HEARTH_NODE_POOLS"]
        mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        assert mounts[str(Path(path).parent)] == "node-pools" and Path(path).name == "node-pools.yaml"


@of_each
def test_every_command_is_one_of_hearths(overlay: str) -> None:
    for name, container in built(overlay).containers():
        if container["image"].rpartition(":")[0].startswith("registry.example/hearth"):
            program, command, *options = container["command"]
            assert program == "hearth", name
            found = typer.main.get_command(hearth).commands[command]  # type: ignore[attr-defined]
            found.make_context(command, options)


@of_each
def test_selectors_and_ports_lead_to_pods(overlay: str) -> None:
    for service in built(overlay).all("Service"):
        (pod,) = chosen(overlay, service["spec"]["selector"])
        named = {port["name"] for each in pod["spec"]["containers"] for port in each["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
    for budget in built(overlay).all("PodDisruptionBudget"):
        assert len(chosen(overlay, budget["spec"]["selector"]["matchLabels"])) == 1
    for scaler in built(overlay).all("HorizontalPodAutoscaler"):
        target = built(overlay).one("Deployment", scaler["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"]  # else every apply would undo what it decided
    for ingress in built(overlay).all("Ingress"):
        (rule,) = ingress["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        service = built(overlay).one("Service", path["backend"]["service"]["name"])
        assert path["backend"]["service"]["port"]["name"] in {
            port["name"] for port in service["spec"]["ports"]
        }


@of_each
def test_nothing_may_be_talked_to_but_what_a_policy_names(overlay: str) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in built(overlay).all("NetworkPolicy")}
    assert policies["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in policies.items():
        assert chosen(overlay, spec["podSelector"].get("matchLabels", {})), name
    listened = {port for rule in policies["gateway"]["ingress"] for port in ports_of(rule)}
    assert listened == {8600}
    assert [ports_of(rule) for rule in policies["api"]["ingress"]] == [{8601}]


def ports_of(rule: Document) -> set[int]:
    return {each["port"] for each in rule["ports"]}


@of_each
@pytest.mark.parametrize("name", ["hearth-api", "hearth-gateway"])
def test_pods_get_the_time_that_their_last_answers_may_take(overlay: str, name: str) -> None:
    spec, container = built(overlay).pod(name)["spec"], container_of(overlay, name)
    (_, waits) = container["lifecycle"]["preStop"]["exec"]["command"]
    drains = built(overlay).environment(container)["HEARTH_DRAIN_SECONDS"]
    assert spec["terminationGracePeriodSeconds"] >= int(waits) + int(drains) + SPARE_SECONDS


@of_each
def test_parts_wait_for_the_schema_and_those_that_decrypt_nothing_cannot(overlay: str) -> None:
    for name in PARTS:
        (first,) = built(overlay).pod(name)["spec"]["initContainers"]
        assert first["command"] == ["hearth", "migrate", "--wait"]
        keys = built(overlay).environment(container_of(overlay, name))["HEARTH_SECRET_KEYS"]
        assert not keys if name in ("hearth-gateway", "hearth-beat") else keys or overlay == "external"


@of_each
def test_a_new_version_has_a_migration_of_its_own_since_a_job_cannot_be_changed(
    overlay: str, tmp_path: Path
) -> None:
    (job,) = built(overlay).all("Job")
    assert job["metadata"]["name"] == "hearth-migrate-0.1.0"
    assert job["spec"]["ttlSecondsAfterFinished"] <= 600  # a change of settings is one of the Job as well
    folder = with_secrets(overlay, tmp_path)
    file = folder / "kustomization.yaml"
    file.write_text(file.read_text().replace("newTag: 0.1.0", "newTag: 0.2.0-rc.1"))
    (job,) = Built.of(folder).all("Job")
    assert job["metadata"]["name"] == "hearth-migrate-0.2.0-rc.1"


@of_each
def test_there_is_no_password_until_somebody_makes_one(overlay: str, tmp_path: Path) -> None:
    done = build(copied(tmp_path) / "overlays" / overlay)
    assert done.returncode != 0
    assert "secrets" in done.stderr


def test_the_trials_passwords_are_made_once_and_differ_from_trial_to_trial(tmp_path: Path) -> None:
    found = [with_secrets("trial", tmp_path / name) / "secrets" / "hearth.env" for name in ("one", "two")]
    said = [dict(line.split("=", 1) for line in file.read_text().splitlines()) for file in found]
    assert all(said[0][name] != said[1][name] for name in said[0] if name != "HEARTH_S3_ENDPOINT")
    assert all(file.stat().st_mode & 0o077 == 0 for file in found)
    again = ["sh", str(found[0].parents[1] / "make-secrets.sh")]
    assert "is there already" in subprocess.run(again, capture_output=True, text=True).stderr
    assert said[0] == dict(line.split("=", 1) for line in found[0].read_text().splitlines())


@of_each
def test_monitoring_can_be_added_and_finds_the_ports_that_it_names(overlay: str, tmp_path: Path) -> None:
    file = with_secrets(overlay, tmp_path) / "kustomization.yaml"
    file.write_text(file.read_text() + "components:\n  - ../../monitoring\n")
    found = Built.of(file.parent)
    (monitor,) = found.all("PodMonitor")
    ports = {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
    for _, pod in found.pods():
        if monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items():
            named = {port["name"] for each in pod["spec"]["containers"] for port in each.get("ports", [])}
            assert ports <= named or pod["spec"]["restartPolicy"] == "OnFailure"


def container_of(overlay: str, name: str) -> Document:
    (found,) = built(overlay).pod(name)["spec"]["containers"]
    return dict(found)


def chosen(overlay: str, labels: dict[str, str]) -> list[Document]:
    return [pod for _, pod in built(overlay).pods() if labels.items() <= pod["metadata"]["labels"].items()]
