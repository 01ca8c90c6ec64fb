"""Nodes that are not there: posts Node objects, and runs the containers of pods bound to them as processes.

An image is a name in a table, and stands for the words in the place of `python -m
workers.runtimes.kubernetes.pod`; a name that is not in the table cannot be pulled. Each pod has an address
of its own on loopback. Volumes are folders, and wherever a container is told of a path in one, it is told of
that folder instead.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.kubernetes.containers import Container, Surroundings
from tests.kubernetes.logs import LogServer
from workers.runtimes.base import RuntimeUnavailable
from workers.runtimes.kubernetes.cluster import POD, Cluster, Kind, Refused

log = logging.getLogger(__name__)

NODE = Kind("v1", "Node", "nodes", namespaced=False)
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
LEASES = "kube-node-lease"
LOOK_SECONDS = 0.15
HEARTBEAT_SECONDS = 1.0
SHORTENED_GRACE = 10.0

Document = dict[str, Any]


@dataclass
class VirtualPod:
    """A pod on a virtual node: its address, its folders, its containers."""

    uid: str
    namespace: str
    name: str
    address: str
    folder: Path
    waiting: list[Container]
    """Init containers, in their order; each has to end well before the next one starts."""
    containers: list[Container]
    told: Document = field(default_factory=dict)
    """The status that the API server was last told."""
    stopping_since: float | None = None

    @property
    def initialized(self) -> bool:
        return all(each.ended_well for each in self.waiting)

    def move_on(self) -> None:
        for each in self.waiting:
            each.move_on()
            if not each.ended_well:
                return
        for each in self.containers:
            each.move_on(restart=True)

    def stop(self, grace_seconds: float) -> bool:
        """Whether nothing of it runs any more."""
        since = self.stopping_since = self.stopping_since or time.monotonic()
        sign = signal.SIGKILL if time.monotonic() - since > grace_seconds else signal.SIGTERM
        ended = [each.stop(sign) for each in (*self.waiting, *self.containers)]
        return all(ended)

    def kill(self) -> None:
        for each in (*self.waiting, *self.containers):
            each.kill()

    def status(self, pod: Document) -> Document:
        ready = self.initialized and all(each.ready for each in self.containers)
        gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
        known = {each["type"]: each["status"] for each in pod["status"].get("conditions") or []}
        open_gates = all(known.get(gate) == "True" for gate in gates)
        conditions = [
            _condition("Initialized", self.initialized, "ContainersNotInitialized"),
            _condition("ContainersReady", ready, "ContainersNotReady"),
            _condition(
                "Ready", ready and open_gates, "ReadinessGatesNotReady" if ready else "ContainersNotReady"
            ),
        ]
        return {
            "phase": self._phase(),
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": conditions,
            "initContainerStatuses": [each.status() for each in self.waiting],
            "containerStatuses": [
                each.status() if self.initialized else {**each.status(), "state": PREPARING}
                for each in self.containers
            ],
        }

    def _phase(self) -> str:
        if all(each.is_over for each in self.containers):
            return "Succeeded" if all(each.ended_well for each in self.containers) else "Failed"
        return "Running" if self.initialized else "Pending"


PREPARING = {"waiting": {"reason": "PodInitializing"}}


class VirtualKubelet:
    """Call `start`, and `close` at the end: it takes its nodes away and ends what runs on them."""

    def __init__(self, cluster: Cluster, images: Mapping[str, Sequence[str]], folder: Path) -> None:
        self.cluster, self.images, self.folder = cluster, dict(images), folder
        self.nodes: set[str] = set()
        self.pods: dict[str, VirtualPod] = {}
        self._addresses = iter(range(1, 60_000))
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self.logs = LogServer(self._log_of, folder)
        self._thread = threading.Thread(target=self._run, name="virtual kubelet", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(30)
        self.logs.close()
        for pod in self.pods.values():
            pod.kill()
        for name in list(self.nodes):
            self.remove_node(name)

    def add_node(self, name: str, labels: Mapping[str, str], *, gpus: int = 0, taint: str = "") -> None:
        taints = [{"key": taint, "effect": "NoSchedule", "value": "yes"}] if taint else []
        self.cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": {**labels, "kubernetes.io/hostname": name}},
                "spec": {"taints": taints},
            },
            NODE,
        )
        room = {"cpu": "64", "memory": "512Gi", "pods": "250", "nvidia.com/gpu": str(gpus)}
        ready = _condition("Ready", True, "")
        status = {"capacity": room, "allocatable": room, "conditions": [ready], **self.logs.address()}
        self.cluster.patch_status(NODE, "", name, status)
        with self._lock:
            self.nodes.add(name)
        self._beat(name)

    def crash_node(self, name: str) -> None:
        """The machine is dead: nothing runs on it, and nobody says so."""
        with self._lock:
            self.nodes.discard(name)
            for pod in self._on(name):
                self.pods.pop(pod.uid).kill()

    def replace_node(self, name: str) -> None:
        """As clouds do with machines that are gone: another one, alike; what was on the old one goes."""
        was = self.cluster.get_path(NODE.path(name=name))
        self.remove_node(name)
        labels = {key: value for key, value in was["metadata"]["labels"].items() if "hostname" not in key}
        gpus = int(was["status"]["capacity"]["nvidia.com/gpu"])
        taints = [taint["key"] for taint in was["spec"]["taints"] if taint.get("value") == "yes"]
        self.add_node(f"{name}-2", labels, gpus=gpus, taint=taints[0] if taints else "")
        for pod in self.cluster.list(POD, {"fieldSelector": f"spec.nodeName={name}"}).get("items") or []:
            metadata = pod["metadata"]
            self.cluster.delete(
                POD, metadata["namespace"], metadata["name"], uid=metadata["uid"], grace_seconds=0
            )

    def remove_node(self, name: str) -> None:
        with self._lock:
            self.nodes.discard(name)
        self.cluster.delete(NODE, None, name)
        with suppress(Refused):
            self.cluster.delete(LEASE, LEASES, name)

    def container(self, pod_uid: str, name: str = "engine") -> Container:
        return next(each for each in self.pods[pod_uid].containers if each.name == name)

    def _log_of(self, namespace: str, pod: str, container: str) -> Container | None:
        with self._lock:
            for each in self.pods.values():
                if (each.namespace, each.name) == (namespace, pod):
                    return next((one for one in each.containers if one.name == container), None)
        return None

    def _on(self, node: str) -> list[VirtualPod]:
        return [pod for pod in self.pods.values() if pod.folder.parent.name == node]

    def _run(self) -> None:
        beaten = 0.0
        while not self._closed.wait(LOOK_SECONDS):
            try:
                if time.monotonic() - beaten > HEARTBEAT_SECONDS:
                    beaten = time.monotonic()
                    for name in list(self.nodes):
                        self._beat(name)
                self._look()
            except (RuntimeUnavailable, Refused) as error:
                log.info("the virtual kubelet waits: %s", error)

    def _beat(self, name: str) -> None:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": moment}
        metadata = {"name": name, "namespace": LEASES}
        lease = {"apiVersion": LEASE.version, "kind": "Lease", "metadata": metadata, "spec": spec}
        self.cluster.apply(lease, LEASE)
        ready = {**_condition("Ready", True, ""), "lastHeartbeatTime": _now()}
        self.cluster.patch_status(NODE, "", name, {"conditions": [ready]})

    def _look(self) -> None:
        found = self.cluster.list(POD, {"fieldSelector": "spec.nodeName!="}).get("items") or []
        with self._lock:
            mine = {each["metadata"]["uid"]: each for each in found if each["spec"]["nodeName"] in self.nodes}
            for uid in self.pods.keys() - mine.keys():
                self.pods.pop(uid).kill()
        for uid, pod in mine.items():
            with self._lock:
                if pod["spec"]["nodeName"] in self.nodes:
                    self._bring_on(uid, pod)

    def _bring_on(self, uid: str, pod: Document) -> None:
        metadata = pod["metadata"]
        if uid not in self.pods:
            if metadata.get("deletionTimestamp"):
                return self.cluster.delete(
                    POD, metadata["namespace"], metadata["name"], uid=uid, grace_seconds=0
                )
            self.pods[uid] = self._prepare(pod)
        virtual = self.pods[uid]
        if metadata.get("deletionTimestamp"):
            once = pod["spec"].get("restartPolicy") == "Never"
            grace = float(metadata["deletionGracePeriodSeconds"]) if once else SHORTENED_GRACE
            if virtual.stop(grace):
                self.pods.pop(uid)
                self.cluster.delete(POD, metadata["namespace"], metadata["name"], uid=uid, grace_seconds=0)
            return None
        virtual.move_on()
        status = virtual.status(pod)
        if status != virtual.told:
            self.cluster.patch_status(POD, metadata["namespace"], metadata["name"], status)
            virtual.told = status
        return None

    def _prepare(self, pod: Document) -> VirtualPod:
        metadata, spec = pod["metadata"], pod["spec"]
        number = next(self._addresses)
        address = f"127.98.{number // 250}.{number % 250 + 1}"
        folder = self.folder / spec["nodeName"] / metadata["uid"]
        folder.mkdir(parents=True)
        volumes = self._volumes(pod, folder)
        for container in spec["containers"]:
            _nest(container, volumes)
        around = Surroundings(pod, address, folder, volumes, self.images, self._secret)
        return VirtualPod(
            metadata["uid"],
            metadata["namespace"],
            metadata["name"],
            address,
            folder,
            [Container(each, around) for each in spec.get("initContainers") or []],
            [Container(each, around) for each in spec["containers"]],
        )

    def _volumes(self, pod: Document, folder: Path) -> dict[str, Path]:
        found = {}
        for volume in pod["spec"].get("volumes") or []:
            path = folder / "volumes" / volume["name"]
            if "hostPath" in volume:
                path = self.folder / pod["spec"]["nodeName"] / "host" / volume["hostPath"]["path"].lstrip("/")
            path.mkdir(parents=True, exist_ok=True)
            found[volume["name"]] = path
        return found

    def _secret(self, namespace: str, name: str) -> Document:
        return self.cluster.get_path(f"/api/v1/namespaces/{namespace}/secrets/{name}")


def _nest(container: Document, volumes: Mapping[str, Path]) -> None:
    """What is mounted within another volume is seen there."""
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container.get("volumeMounts") or []}
    for path, volume in mounts.items():
        outer = mounts.get(str(Path(path).parent))
        if outer is not None and not (outer / Path(path).name).exists():
            (outer / Path(path).name).symlink_to(volume)


def _condition(kind: str, true: bool, reason: str) -> Document:
    return {"type": kind, "status": "True" if true else "False", "reason": "" if true else reason}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
