"""A virtual node on which Hearth's own parts run: its images are this checkout.

Pods are handed to their containers with what a kubelet finds out for them: values of ConfigMaps and Secrets,
the numbers of named ports, and addresses of Services. "All addresses" are the pod's own one here, since all
pods share one machine.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.kubernetes.kubelet import VirtualKubelet, VirtualPod
from tests.kubernetes.road import Road
from workers.runtimes.kubernetes.cluster import Cluster

Document = dict[str, Any]

HEARTH = ["python", "-m", "launcher.main"]
ALL_ADDRESSES = "0.0.0.0"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Of API servers that are somewhere else; `more` tells another way."""
FIRST_ADDRESS, LAST_ADDRESS = 40_000, 60_000
"""Apart from those of the pods of other virtual nodes."""


class PartsKubelet(VirtualKubelet):
    def __init__(
        self, cluster: Cluster, images: Sequence[str], folder: Path, more: Mapping[str, str]
    ) -> None:
        """`more` is the environment of every container, over its own."""
        super().__init__(cluster, dict.fromkeys(images, ()), folder)
        self._addresses = iter(range(FIRST_ADDRESS, LAST_ADDRESS))
        self._more = more
        self.services: dict[tuple[str, str], ServiceRoad] = {}
        """By (namespace, name)."""

    def close(self) -> None:
        super().close()
        for each in self.services.values():
            each.close()

    def address_of(self, namespace: str, service: str) -> str:
        """Where a Service's first port is reached."""
        key = (namespace, service)
        if key not in self.services:
            self.services[key] = ServiceRoad(lambda: self._endpoint(*key))
        return f"127.0.0.1:{self.services[key].port}"

    def environment(self, namespace: str, container: Document) -> dict[str, str]:
        """The values of a container's environment that stand somewhere, `env` over `envFrom`."""
        found: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            found |= self._entries(namespace, source)
        found |= {each["name"]: each["value"] for each in container.get("env") or [] if "value" in each}
        return {name: self._reached(namespace, value) for name, value in (found | dict(self._more)).items()}

    def _prepare(self, pod: Document) -> VirtualPod:
        return super()._prepare(self._resolved(pod))

    def _resolved(self, pod: Document) -> Document:
        found: Document = json.loads(json.dumps(pod))
        spec = found["spec"]
        # A container that is started again by its Job, and not by its node, comes to the same end.
        spec["restartPolicy"] = "Never" if spec["restartPolicy"] == "OnFailure" else spec["restartPolicy"]
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            values = self.environment(pod["metadata"]["namespace"], container)
            container["envFrom"] = []
            container["env"] = [_variable(name, value) for name, value in values.items()]
            if container["command"][0] == "hearth":
                container["command"] = [*HEARTH, *container["command"][1:]]
            told = [each for each in container["volumeMounts"] if _is_told(each)]
            left_out = {each["name"] for each in container["volumeMounts"] if each not in told}
            spec["volumes"] = [each for each in spec["volumes"] if each["name"] not in left_out]
            container["volumeMounts"] = told
            _number_ports(container)
        return found

    def _volumes(self, pod: Document, folder: Path) -> dict[str, Path]:
        found = super()._volumes(pod, folder)
        namespace = pod["metadata"]["namespace"]
        for volume in pod["spec"].get("volumes") or []:
            if source := volume.get("configMap"):
                for name, text in self._get(namespace, "configmaps", source["name"])["data"].items():
                    (found[volume["name"]] / name).write_text(text)
        return found

    def _entries(self, namespace: str, source: Document) -> dict[str, str]:
        if named := source.get("configMapRef"):
            return dict(self._get(namespace, "configmaps", named["name"])["data"])
        secret = self._get(namespace, "secrets", source["secretRef"]["name"])
        return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}

    def _get(self, namespace: str, plural: str, name: str = "") -> Document:
        return self.cluster.get_path(f"/api/v1/namespaces/{namespace}/{plural}/{name}".rstrip("/"))

    def _reached(self, namespace: str, value: str) -> str:
        """The same with the address of a Service that is named as the host of a URL."""
        scheme, found, host = value.partition("://")
        if found and host in {each["metadata"]["name"] for each in self._get(namespace, "services")["items"]}:
            return f"{scheme}://{self.address_of(namespace, host)}"
        return value

    def _endpoint(self, namespace: str, service: str) -> tuple[str, int] | None:
        """A ready pod that the Service's selector finds, and the port that it names there."""
        spec = self._get(namespace, "services", service)["spec"]
        for pod in self._get(namespace, "pods")["items"]:
            labels, status = pod["metadata"].get("labels") or {}, pod["status"]
            if spec["selector"].items() <= labels.items() and _is_ready(status):
                return status["podIP"], _port(pod, spec["ports"][0]["targetPort"])
        return None


class ServiceRoad(Road):
    """Stands where a Service's address would be: each connection goes to a pod behind it."""

    def __init__(self, endpoint: Callable[[], tuple[str, int] | None]) -> None:
        super().__init__(("", 0))
        self._endpoint = endpoint

    def _carry(self, near: socket.socket) -> None:
        found = self._endpoint()
        if found is None:
            near.close()
            return
        self._target = found
        super()._carry(near)


def _variable(name: str, value: str) -> Document:
    if value == ALL_ADDRESSES:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return {"name": name, "value": value}


def _is_told(mount: Document) -> bool:
    """Paths of other volumes may lie in this machine's /tmp, so it stands for itself."""
    return mount["mountPath"] not in ("/tmp", TOKEN_PATH)


def _number_ports(container: Document) -> None:
    numbers = {each["name"]: each["containerPort"] for each in container.get("ports") or []}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        for asked in (container.get(kind) or {}).values():
            if isinstance(asked, dict) and "port" in asked:
                asked["port"] = numbers.get(asked["port"], asked["port"])


def _port(pod: Document, name: str) -> int:
    ports = [each for container in pod["spec"]["containers"] for each in container.get("ports") or []]
    (found,) = [int(each["containerPort"]) for each in ports if each["name"] == name]
    return found


def _is_ready(status: Document) -> bool:
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or []}
    return conditions.get("Ready") == "True"
