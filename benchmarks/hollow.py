"""Nodes and engines that are not there: pods are said to be ready, and one small server answers for all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from workers.runtimes.base import RuntimeUnavailable
from workers.runtimes.kubernetes.cluster import POD, Cluster, Kind, Refused
from workers.runtimes.kubernetes.manifests import ENGINE_PORT, SERVING_GATE

ADDRESS = "127.97.0.1"
"""Of every pod."""
PODS_A_NODE = 200
NODE = Kind("v1", "Node", "nodes", namespaced=False)
HEARTBEAT_SECONDS = 2.0
THREADS = 4

Document = dict[str, Any]


@contextmanager
def hollow_nodes(cluster: Cluster, pods: int, labels: dict[str, str]) -> Iterator[None]:
    """Nodes with room for so many pods of one GPU each, and what makes pods ready, until the block ends."""
    closed = threading.Event()
    names = [f"hollow-{number}" for number in range(-(-max(pods, 1) // PODS_A_NODE))]
    for name in names:
        _post_node(cluster, name, labels)
    threads = [
        threading.Thread(target=_beat, args=(cluster, names, closed), daemon=True),
        threading.Thread(target=_serve_pods, args=(cluster, closed), daemon=True),
    ]
    engine = ThreadingHTTPServer((ADDRESS, ENGINE_PORT), _Engine)
    threads.append(threading.Thread(target=engine.serve_forever, daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        closed.set()
        engine.shutdown()
        engine.server_close()


class _Engine(BaseHTTPRequestHandler):
    """Takes every request for one to the base, and answers as an engine does that is asked for proof."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        chance = {"token_id:7": -1.0}
        choice = {"prompt_logprobs": [None], "logprobs": {"top_logprobs": [chance]}}
        said = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _post_node(cluster: Cluster, name: str, labels: dict[str, str]) -> None:
    metadata = {"name": name, "labels": {**labels, "kubernetes.io/hostname": name}}
    cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata}, NODE)
    room = {"cpu": "1000", "memory": "4Ti", "pods": str(PODS_A_NODE), "nvidia.com/gpu": str(PODS_A_NODE)}
    ready = {"type": "Ready", "status": "True"}
    cluster.patch_status(NODE, "", name, {"capacity": room, "allocatable": room, "conditions": [ready]})


def _beat(cluster: Cluster, names: list[str], closed: threading.Event) -> None:
    """A node that says nothing new is given up, and its pods are told that they are not ready."""
    while True:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": moment}
        for name in names:
            _patch(cluster, NODE, "", name, {"conditions": [ready]})
        if closed.wait(HEARTBEAT_SECONDS):
            return


def _serve_pods(cluster: Cluster, closed: threading.Event) -> None:
    """Follow the pods that are bound to a node."""
    query = {"fieldSelector": "spec.nodeName!=", "resourceVersion": "0"}
    with ThreadPoolExecutor(THREADS) as pool:
        while not closed.is_set():
            try:
                for event in cluster.watch(POD, query, seconds=600):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        pool.submit(_bring_on, cluster, event["object"])
                    if closed.is_set():
                        return
            except (RuntimeUnavailable, Refused):
                closed.wait(1)


def _bring_on(cluster: Cluster, pod: Document) -> None:
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or []}
    if metadata.get("deletionTimestamp"):
        names = metadata["namespace"], metadata["name"]
        return cluster.delete(POD, *names, uid=metadata["uid"], grace_seconds=0)
    ready = conditions.get(SERVING_GATE, "False")
    if status.get("podIP") == ADDRESS and conditions.get("Ready") == ready:
        return None
    return _patch(cluster, POD, metadata["namespace"], metadata["name"], _status(pod, ready))


def _status(pod: Document, ready: str) -> Document:
    spec = pod["spec"]
    ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    return {
        "phase": "Running",
        "podIP": ADDRESS,
        "podIPs": [{"ip": ADDRESS}],
        "conditions": [
            {"type": "Initialized", "status": "True"},
            {"type": "ContainersReady", "status": "True"},
            {"type": "Ready", "status": ready, "reason": "" if ready == "True" else "ReadinessGatesNotReady"},
        ],
        "initContainerStatuses": [_container(each, ended) for each in spec.get("initContainers") or []],
        "containerStatuses": [_container(each, {"running": {}}) for each in spec["containers"]],
    }


def _container(container: Document, state: Document) -> Document:
    image = container["image"]
    told = {"name": container["name"], "image": image, "imageID": image, "restartCount": 0}
    return {**told, "ready": True, "started": True, "state": state}


def _patch(cluster: Cluster, kind: Kind, namespace: str, name: str, status: Document) -> None:
    try:
        cluster.patch_status(kind, namespace, name, status)
    except (RuntimeUnavailable, Refused):
        pass  # it is gone, or the next event or beat brings it on
