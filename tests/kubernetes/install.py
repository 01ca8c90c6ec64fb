"""The overlays of k8s/ as somebody has them who has just filled in the settings and made the secrets."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.kubernetes.story import KUBECTL

Document = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
NAMESPACE = "hearth"
OVERLAYS = ("external", "trial")
WORKLOADS = ("Deployment", "StatefulSet", "Job")


def copied(folder: Path) -> Path:
    """A copy of k8s/ to fill in."""
    return Path(shutil.copytree(K8S, folder / "k8s", ignore=shutil.ignore_patterns("secrets*")))


def with_secrets(overlay: str, folder: Path, values: Mapping[str, str] | None = None) -> Path:
    """An overlay in a copy of k8s/, with its secrets, or with these."""
    found = copied(folder) / "overlays" / overlay
    if overlay == "trial":
        subprocess.run(["sh", str(found / "make-secrets.sh")], check=True)
        return found
    example = (K8S / "overlays" / overlay / "secrets.env.example").read_text()
    lines = "\n".join(f"{name}={value}" for name, value in (values or {}).items())
    (found / "secrets.env").write_text(lines or example)
    return found


def build(overlay: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(KUBECTL), "kustomize", str(overlay)], capture_output=True, text=True)


@dataclass(frozen=True)
class Built:
    """All objects of an overlay."""

    documents: tuple[Document, ...]

    @classmethod
    def of(cls, overlay: Path) -> Built:
        done = build(overlay)
        assert done.returncode == 0, done.stderr
        return cls(tuple(yaml.safe_load_all(done.stdout)))

    def all(self, *kinds: str) -> list[Document]:
        return [each for each in self.documents if each["kind"] in kinds]

    def one(self, kind: str, name: str) -> Document:
        """By its name, or by the name before the hash that kustomize puts behind it."""
        named = [each for each in self.all(kind) if each["metadata"]["name"] == name]
        (found,) = named or [each for each in self.all(kind) if each["metadata"]["name"][:-11] == name]
        return found

    def pods(self) -> Iterator[tuple[str, Document]]:
        """(name of the workload, template of its pods)."""
        for each in self.all(*WORKLOADS):
            yield each["metadata"]["name"], each["spec"]["template"]

    def pod(self, name: str) -> Document:
        return dict(self.pods())[name]

    def containers(self) -> Iterator[tuple[str, Document]]:
        """(workload/container, container), with those that come first."""
        for name, pod in self.pods():
            for each in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
                yield f"{name}/{each['name']}", each

    def environment(self, container: Document) -> dict[str, str]:
        """What a container's process finds: what stands in `env` wins."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self._entries(source)
        return found | {each["name"]: each["value"] for each in container.get("env", [])}

    def _entries(self, source: Document) -> dict[str, str]:
        if named := source.get("configMapRef"):
            return dict(self.one("ConfigMap", named["name"])["data"])
        secret = self.one("Secret", source["secretRef"]["name"])
        return {name: decoded(value) for name, value in secret["data"].items()}


def decoded(value: str) -> str:
    return base64.b64decode(value).decode()
