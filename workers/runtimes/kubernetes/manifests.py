"""The Kubernetes objects of fleets, as plain documents. Pure: the same in gives the same out.

A deployment has, in its account's namespace (`account_manifests`) and under one name:

    Deployment, ServiceAccount, Service, PodDisruptionBudget     `fleet_objects`

The Deployment owns the others: with it they go. Its pods carry what their engine is started with as an
annotation, so that a change of it is a change of the template and replaces them, new ones first.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controlplane.node_pools import Cache, NodePool, NodePools
from controlplane.sizing import GIB, PodSize, quantity_bytes
from workers.runtimes.base import FleetSpec
from workers.runtimes.cache_uses import LIMIT_VARIABLE
from workers.runtimes.kubernetes.pod import ADDON_PORT_OFFSET
from workers.runtimes.vllm import ENGINE_SPEC, EngineSpec

Manifest = dict[str, Any]

DOMAIN = "hearth.dev"
MANAGED = {"app.kubernetes.io/managed-by": "hearth"}
PLATFORM_LABEL = f"{DOMAIN}/platform"
"""Tells the objects of one Hearth from those of another on the same cluster."""
UID_LABEL = f"{DOMAIN}/deployment-uid"
ACCOUNT_LABEL = f"{DOMAIN}/account"
GENERATION_LABEL = f"{DOMAIN}/generation"
JOB_LABEL = f"{DOMAIN}/job-uid"
COMPONENT_LABEL = "app.kubernetes.io/component"
NAME_ANNOTATION = f"{DOMAIN}/name"
SPEC_ANNOTATION = f"{DOMAIN}/engine"
STORE_ANNOTATION = f"{DOMAIN}/object-store"
SERVING_GATE = f"{DOMAIN}/serving"
"""The condition of a pod that says that every addon is proven on it: before that no older one goes."""

ENGINE_PORT = 8000
STAGER_PORT = ENGINE_PORT + ADDON_PORT_OFFSET
USER = 65532
CACHE_PATH = "/var/cache/hearth"
WORK_PATH = "/run/hearth"
SPEC_FILE = f"{WORK_PATH}/spec/SPEC.json"
STORE_SECRET = "hearth-object-store"
ENGINE, STAGING, ADDONS, TRAINER = "engine", "staging", "addons", "trainer"

POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

DRAIN_SECONDS = 10
"""Between the moment a pod is told to go and the end of its engine: the gateway learns of it within two."""
GRACE_SECONDS = 120
"""For the requests in flight, drain included."""
LOADING_SECONDS = 30 * 60
SILENT_SECONDS = 60
"""An engine that does not answer for so long is restarted."""
LOST_NODE_SECONDS = 15
"""A node that was given up loses its pods after so long; they are nothing that could not start elsewhere."""


@dataclass(frozen=True)
class Place:
    """Where a fleet's pods go, and what each of them asks for."""

    pools: NodePools
    pool: NodePool
    size: PodSize


def managed(pools: NodePools) -> dict[str, str]:
    """The labels by which one Hearth finds what is its own."""
    return {**MANAGED, PLATFORM_LABEL: pools.namespace_prefix}


def namespace_of(pools: NodePools, account_id: str) -> str:
    return short_name(f"{pools.namespace_prefix}-{account_id}")


def fleet_name(spec: FleetSpec) -> str:
    """Of a deployment's id and uid: ids are used again. Services want a letter in front."""
    own = spec.deployment_name.rpartition("/")[2]
    return short_name(f"d-{own}", room=63 - 9) + f"-{spec.deployment_uid[:8]}"


def short_name(name: str, room: int = 63) -> str:
    """The name, cut where it is too long for a label; what is cut off stands as a hash.

    Only what was cut is `room` long, so that nobody can choose a name that is another one's cut form.
    """
    if len(name) < room:
        return name
    return f"{name[: room - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def fleet_objects(
    spec: FleetSpec,
    place: Place,
    store: dict[str, str],
    budget_version: str = "policy/v1",
    owner_uid: str | None = None,
) -> list[Manifest]:
    """The Deployment first. Without `owner_uid` nothing says yet that it owns the others."""
    namespace, name, labels = (
        namespace_of(place.pools, spec.account_id),
        fleet_name(spec),
        fleet_labels(spec, place),
    )
    selector = {"matchLabels": {UID_LABEL: spec.deployment_uid}}
    account = document("v1", "ServiceAccount", name, namespace, labels)
    service = document(
        "v1",
        "Service",
        name,
        namespace,
        labels,
        {
            "clusterIP": "None",
            "selector": selector["matchLabels"],
            "ports": [{"name": "http", "port": ENGINE_PORT, "protocol": "TCP", "targetPort": ENGINE_PORT}],
        },
    )
    limits = {"maxUnavailable": 1, "selector": selector}
    budget = document(budget_version, "PodDisruptionBudget", name, namespace, labels, limits)
    owned = [{**account, "automountServiceAccountToken": False}, service, budget]
    if owner_uid:
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": owner_uid}
        for each in owned:
            each["metadata"]["ownerReferences"] = [owner]
    deployment = _deployment(spec, place, namespace, name, labels, selector)
    if spec.engine.enable_adapters:  # what brings addons has the store's key for as long as its pod lives
        deployment["spec"]["template"]["metadata"]["annotations"][STORE_ANNOTATION] = fingerprint(store)
    return [deployment, *owned]


def fingerprint(store: dict[str, str]) -> str:
    """Tells one set of credentials from another: Secrets are written, and never read to compare them."""
    said = json.dumps(store, sort_keys=True).encode()
    return hmac.digest(store["HEARTH_S3_SECRET_KEY"].encode(), said, "sha256").hex()[:16]


def fleet_labels(spec: FleetSpec, place: Place) -> dict[str, str]:
    return {
        **managed(place.pools),
        "app.kubernetes.io/name": "vllm",
        COMPONENT_LABEL: ENGINE,
        "app.kubernetes.io/part-of": "hearth",
        "app.kubernetes.io/instance": fleet_name(spec),
        ACCOUNT_LABEL: spec.account_id,
        UID_LABEL: spec.deployment_uid,
    }


def _deployment(
    spec: FleetSpec, place: Place, namespace: str, name: str, labels: dict[str, str], selector: Manifest
) -> Manifest:
    generation = {GENERATION_LABEL: str(spec.generation)}
    pod = _pod(place, name)
    if spec.engine.enable_adapters:
        pod["containers"].append(_stager(place))
    template = {
        "metadata": {
            "labels": {**labels, **generation},
            "annotations": {NAME_ANNOTATION: spec.deployment_name, SPEC_ANNOTATION: engine_spec(spec, place)},
        },
        "spec": pod,
    }
    found = document("apps/v1", "Deployment", name, namespace, {**labels, **generation})
    found["metadata"]["annotations"] = {NAME_ANNOTATION: spec.deployment_name}
    found["spec"] = {
        "replicas": spec.replicas,
        "selector": selector,
        # New ones are ready before old ones go; the room for one more is needed for a while.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": LOADING_SECONDS,
        "template": template,
    }
    return found


def engine_spec(spec: FleetSpec, place: Place) -> str:
    """SPEC.json of the pods; what differs from pod to pod they learn in the pod."""
    replica = replace(
        spec.engine,
        replica_uid="",
        host="",
        port=ENGINE_PORT,
        accelerator_count=max(place.size.accelerators, 1),
    )
    threads = max(int(float(place.size.cpu)), 1) if place.pool.on_cpu and is_whole(place.size.cpu) else 1
    engine = EngineSpec(replica, Path(CACHE_PATH), threads if place.pool.on_cpu else 0)
    return json.dumps(ENGINE_SPEC.dump_python(engine, mode="json"), sort_keys=True)


def is_whole(cores: str) -> bool:
    return cores.replace(".", "", 1).isdigit()


def _pod(place: Place, service_account: str) -> Manifest:
    pool = place.pool
    staging = _container(place, STAGING, "stage", {"requests": {"cpu": "1", "memory": "1Gi"}})
    staging["envFrom"] = STORE_ACCESS
    engine = _container(place, ENGINE, "serve", resources(place))
    spec: Manifest = {
        "serviceAccountName": service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service called vllm would set VLLM_PORT
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": POD_SECURITY,
        "readinessGates": [{"conditionType": SERVING_GATE}],
        "initContainers": [staging],
        "containers": [{**engine, **_probes()}],
        "volumes": _volumes(place.pools.cache),
        "tolerations": [*(toleration(each) for each in pool.tolerations), *LOST_NODES],
    }
    if pool.node_selector:
        spec["nodeSelector"] = pool.node_selector
    return spec


def resources(place: Place) -> Manifest:
    """Of the container that has a pod's GPUs."""
    pool, size = place.pool, place.size
    requests = {"cpu": size.cpu, "memory": size.memory}
    limits = {"memory": size.memory}
    if pool.resource:
        limits[pool.resource] = requests[pool.resource] = str(size.accelerators)
    return {"requests": requests, "limits": limits}


def _stager(place: Place) -> Manifest:
    """Beside an engine that takes addons: brings them to the cache that both have."""
    small = {"cpu": "100m", "memory": "512Mi"}
    stager = _container(place, ADDONS, "addons", {"requests": small, "limits": {"memory": small["memory"]}})
    ports = [{"name": "addons", "containerPort": STAGER_PORT, "protocol": "TCP"}]
    probe = {"tcpSocket": {"port": STAGER_PORT}, "periodSeconds": 2}
    return {**stager, "envFrom": STORE_ACCESS, "ports": ports, "readinessProbe": probe}


STORE_ACCESS = [{"secretRef": {"name": STORE_SECRET}}]
LOST_NODES = [
    {
        "key": f"node.kubernetes.io/{what}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": LOST_NODE_SECONDS,
    }
    for what in ("not-ready", "unreachable")
]


def toleration(toleration: Any) -> Manifest:
    found: Manifest = toleration.model_dump(exclude_none=True)
    return found


def _container(place: Place, name: str, task: str, resources: Manifest) -> Manifest:
    return {
        "name": name,
        "image": place.pools.image,
        "command": ["python", "-m", "workers.runtimes.kubernetes.pod", task, SPEC_FILE],
        "workingDir": WORK_PATH,
        "env": [
            {"name": "HEARTH_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "HOME", "value": WORK_PATH},
            {"name": "TMPDIR", "value": WORK_PATH},
            {"name": "PYTHONSAFEPATH", "value": "1"},
            {"name": "PYTHONNOUSERSITE", "value": "1"},
            *cache_limit(place.pools.cache),
        ],
        "resources": resources,
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            {"name": "cache", "mountPath": CACHE_PATH},
            {"name": "work" if name == ENGINE else "errands", "mountPath": WORK_PATH},
            {"name": "spec", "mountPath": str(Path(SPEC_FILE).parent), "readOnly": True},
            {"name": "memory", "mountPath": "/dev/shm"},
        ],
        # Its last words are the reason of its end, and nobody needs a right to read logs for them.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _probes() -> Manifest:
    health = {"path": "/health", "port": ENGINE_PORT}
    return {
        "ports": [{"name": "http", "containerPort": ENGINE_PORT, "protocol": "TCP"}],
        "startupProbe": _probe(health, period=2, failures=LOADING_SECONDS // 2),
        "readinessProbe": _probe(health, period=2, failures=3),
        "livenessProbe": _probe(health, period=10, failures=SILENT_SECONDS // 10),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(DRAIN_SECONDS)]}}},
    }


def _probe(health: Manifest, *, period: int, failures: int) -> Manifest:
    return {"httpGet": health, "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 2}


def _volumes(cache: Cache) -> list[Manifest]:
    annotation = {"fieldPath": f"metadata.annotations['{SPEC_ANNOTATION}']"}
    spec = {"items": [{"path": Path(SPEC_FILE).name, "fieldRef": annotation}]}
    return [
        cache_volume(cache),
        {"name": "work", "emptyDir": {}},
        # Who holds the object store's key starts in a folder that the engine cannot write to.
        {"name": "errands", "emptyDir": {}},
        {"name": "spec", "downwardAPI": spec},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ]


def cache_volume(cache: Cache) -> Manifest:
    if cache.host_path:
        return {"name": "cache", "hostPath": {"path": cache.host_path, "type": "DirectoryOrCreate"}}
    return {"name": "cache", "emptyDir": {"sizeLimit": cache.empty_dir}}


def cache_limit(cache: Cache) -> list[Manifest]:
    """In the environment of what brings weights."""
    limit = cache.limit or cache.empty_dir
    return [{"name": LIMIT_VARIABLE, "value": f"{quantity_bytes(limit) / GIB:g}"}] if limit else []


def document(
    version: str, kind: str, name: str, namespace: str, labels: dict[str, str], spec: Manifest | None = None
) -> Manifest:
    metadata: Manifest = {"name": name, "namespace": namespace, "labels": labels}
    found: Manifest = {"apiVersion": version, "kind": kind, "metadata": metadata}
    return {**found, "spec": spec} if spec is not None else found
