"""The Kubernetes objects of one attempt at a fine-tuning job, as plain documents. Pure.

    Job                a single pod, which is never started a second time
    Secret             what the trainer is told and the keys that it needs; the Job owns it
    NetworkPolicy      the way to Weights & Biases, for jobs that log there; the Job owns it

and one ServiceAccount without any rights for all of an account's trainers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from controlplane.node_pools import NodePools
from controlplane.sizing import quantity_bytes
from workers.runtimes.base import TrainerSpec
from workers.runtimes.kubernetes.account_manifests import reach
from workers.runtimes.kubernetes.manifests import (
    ACCOUNT_LABEL,
    COMPONENT_LABEL,
    CONTAINER_SECURITY,
    DOMAIN,
    JOB_LABEL,
    NAME_ANNOTATION,
    POD_SECURITY,
    TRAINER,
    WORK_PATH,
    Manifest,
    Place,
    cache_limit,
    cache_volume,
    document,
    managed,
    namespace_of,
    resources,
    short_name,
    toleration,
)
from workers.runtimes.trainer_pod import ATTEMPT_VARIABLE, POD_VARIABLE

ATTEMPT_LABEL = f"{DOMAIN}/attempt"
READY_ANNOTATION = f"{DOMAIN}/ready"
"""Of a Job whose Secret is there: what a worker that died in between left is taken up again."""
SERVICE_ACCOUNT = "hearth-trainer"
SPEC_FILE = "SPEC.json"
SPEC_FOLDER = f"{WORK_PATH}-spec"
CACHE_PATH = f"{WORK_PATH}/cache"
"""The engines' cache: both stage the same weights to the same place."""
GRACE_SECONDS = 60
"""For a checkpoint, when a node is drained or somebody deletes the pod."""
KEPT_SECONDS = 7 * 24 * 3600
"""Hearth removes a Job seconds after its end; this is for the case that Hearth itself is gone."""
GONE_NODES = [
    {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute"}
    for what in ("not-ready", "unreachable")
]
"""Without a limit: a trainer goes on when its node is back, and no other starts before it is known gone."""


def job_name(spec: TrainerSpec) -> str:
    """Of the job's id, its uid and the attempt: ids are used again."""
    own = str(spec.document["job_name"]).rpartition("/")[2]
    end = f"-{spec.job_uid[:8]}-{spec.attempt}"
    return short_name(f"t-{own}", room=63 - len(end)) + end


def account_of(spec: TrainerSpec) -> str:
    return str(spec.document["job_name"]).split("/")[1]


def account(spec: TrainerSpec, pools: NodePools) -> Manifest:
    namespace = namespace_of(pools, account_of(spec))
    labels = {**managed(pools), "app.kubernetes.io/part-of": "hearth"}
    found = document("v1", "ServiceAccount", SERVICE_ACCOUNT, namespace, labels)
    return {**found, "automountServiceAccountToken": False}


def job(spec: TrainerSpec, place: Place, keys: Mapping[str, str], *, ready: bool = False) -> Manifest:
    """`keys` goes to the trainer by its environment, and only the names of it stand here."""
    labels = trainer_labels(spec, place.pools)
    found = document("batch/v1", "Job", job_name(spec), namespace_of(place.pools, account_of(spec)), labels)
    named = {NAME_ANNOTATION: str(spec.document["job_name"])}
    found["metadata"]["annotations"] = {**named, READY_ANNOTATION: "true"} if ready else named
    kept_by_autoscalers = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    found["spec"] = {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": {
            "metadata": {"labels": labels, "annotations": {**named, **kept_by_autoscalers}},
            "spec": _pod(spec, place, keys),
        },
    }
    return found


def owned_objects(spec: TrainerSpec, place: Place, keys: Mapping[str, str], owner_uid: str) -> list[Manifest]:
    name, namespace = job_name(spec), namespace_of(place.pools, account_of(spec))
    labels = trainer_labels(spec, place.pools)
    data = {SPEC_FILE: json.dumps(spec.document), **keys}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    found = [{**document("v1", "Secret", name, namespace, labels), "type": "Opaque", "data": encoded}]
    if to_tracker := _way_out(spec):
        policy = {
            "podSelector": {"matchLabels": {JOB_LABEL: spec.job_uid}},
            "policyTypes": ["Egress"],
            "egress": [to_tracker],
        }
        found.append(document("networking.k8s.io/v1", "NetworkPolicy", name, namespace, labels, policy))
    for each in found:
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": owner_uid}
        each["metadata"]["ownerReferences"] = [owner]
    return found


def trainer_labels(spec: TrainerSpec, pools: NodePools) -> dict[str, str]:
    return {
        **managed(pools),
        "app.kubernetes.io/name": "hearth-trainer",
        COMPONENT_LABEL: TRAINER,
        "app.kubernetes.io/part-of": "hearth",
        ACCOUNT_LABEL: account_of(spec),
        JOB_LABEL: spec.job_uid,
        ATTEMPT_LABEL: str(spec.attempt),
    }


def _way_out(spec: TrainerSpec) -> Manifest | None:
    run = spec.document.get("wandb")
    if not run or run.get("mode") == "offline":
        return None
    address = urlsplit(str(run["base_url"]))
    port = address.port or (443 if address.scheme == "https" else 80)
    return {"ports": [{"protocol": "TCP", "port": port}], "to": reach(address.hostname or "")}


def _pod(spec: TrainerSpec, place: Place, keys: Mapping[str, str]) -> Manifest:
    pod: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": POD_SECURITY,
        "containers": [_container(spec, place, keys)],
        "volumes": [
            cache_volume(place.pools.cache),
            {"name": "work", "emptyDir": {}},
            {
                "name": "spec",
                "secret": {
                    "secretName": job_name(spec),
                    "items": [{"key": SPEC_FILE, "path": SPEC_FILE}],
                },
            },
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
        "tolerations": [*(toleration(each) for each in place.pool.tolerations), *GONE_NODES],
    }
    if place.pool.node_selector:
        pod["nodeSelector"] = place.pool.node_selector
    return pod


def _container(spec: TrainerSpec, place: Place, keys: Mapping[str, str]) -> Manifest:
    return {
        "name": TRAINER,
        "image": place.pools.trainer_image or place.pools.image,
        "command": [
            "python",
            "-m",
            "workers.runtimes.trainer_pod",
            f"{SPEC_FOLDER}/{SPEC_FILE}",
        ],
        "workingDir": WORK_PATH,
        "env": [*_plain_environment(spec, place), *(_key(job_name(spec), name) for name in sorted(keys))],
        "resources": resources(place),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            {"name": "cache", "mountPath": CACHE_PATH},
            {"name": "work", "mountPath": WORK_PATH},
            {"name": "spec", "mountPath": SPEC_FOLDER, "readOnly": True},
            {"name": "memory", "mountPath": "/dev/shm"},
        ],
        # Its last words are there as long as the pod is, and cost no request.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _plain_environment(spec: TrainerSpec, place: Place) -> list[dict[str, Any]]:
    plain = {
        ATTEMPT_VARIABLE: str(spec.attempt),
        "HEARTH_DATA_DIR": WORK_PATH,
        "HOME": WORK_PATH,
        "TMPDIR": WORK_PATH,
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
    }
    if place.pool.on_cpu:  # else each of its processes takes as many threads as the node has cores
        plain["OMP_NUM_THREADS"] = str(max(int(quantity_bytes(place.pool.cpu)), 1))
    own = {"name": POD_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    told = ({"name": name, "value": value} for name, value in plain.items())
    return [own, *told, *cache_limit(place.pools.cache)]


def _key(secret: str, name: str) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}
