"""One cluster: what of Hearth's is on it, and the requests that change that."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from controlplane.node_pools import NodePools
from workers.runtimes.base import (
    FleetNews,
    FleetObservation,
    FleetSpec,
    ReplicaObservation,
    RuntimeUnavailable,
)
from workers.runtimes.kubernetes.account_manifests import account_objects
from workers.runtimes.kubernetes.cluster import (
    DEPLOYMENT,
    FIELD_MANAGER,
    POD,
    Cluster,
    Conflict,
    Document,
    Refused,
)
from workers.runtimes.kubernetes.difference import holds, is_left_over, owned_fields
from workers.runtimes.kubernetes.manifests import (
    ACCOUNT_LABEL,
    COMPONENT_LABEL,
    JOB_LABEL,
    SERVING_GATE,
    TRAINER,
    UID_LABEL,
    Manifest,
    Place,
    fleet_objects,
)
from workers.runtimes.kubernetes.observation import condition, replicas_of
from workers.runtimes.kubernetes.view import View, is_uid

log = logging.getLogger(__name__)

OF_FLEETS = ("Deployment", "ServiceAccount", "Service", "PodDisruptionBudget")
OF_ACCOUNTS = ("Namespace", "NetworkPolicy", "ResourceQuota")
OF_TRAINERS = ("Job", "Pod")
SEEN = ("Pod", *OF_FLEETS, *OF_ACCOUNTS)
"""No Secrets: a right to list them would be one to read everybody's."""
REMEMBERED_PODS = 10_000


class Site:
    """One cluster, and what is seen of it."""

    def __init__(self, context: str, cluster: Cluster, labels: Mapping[str, str]) -> None:
        """`labels` are those of everything that is ours."""
        self.context, self.cluster = context, cluster
        self.view = View(cluster, SEEN, _selector(labels), UID_LABEL, ACCOUNT_LABEL)
        of_trainers = {**labels, COMPONENT_LABEL: TRAINER}
        self.trainers = View(cluster, OF_TRAINERS, _selector(of_trainers), JOB_LABEL)
        self._pods: dict[str, tuple[str, str]] = {}

    def declare(self, spec: FleetSpec, place: Place, store: dict[str, str]) -> None:
        """Apply what is not as it should be. The Deployment comes first, at zero: what it owns names it."""
        self.prepare_account(place.pools, spec.account_id, store)
        budget = self.cluster.budget_version
        empty = fleet_objects(spec, place, store, budget)[0]
        before = self._find(spec.deployment_uid, empty)
        found = before or self._apply({**empty, "spec": {**empty["spec"], "replicas": 0}})
        deployment, *owned = fleet_objects(spec, place, store, budget, found["metadata"]["uid"])
        for document in owned:
            self._settle(document)
        if not _is_as_declared(deployment, found):
            self._tell_change(self._apply(deployment), before, spec)

    def prepare_account(self, pools: NodePools, account_id: str, store: dict[str, str]) -> None:
        """Apply what of the account's namespace is not as it should be.

        The namespace says which credentials it has, so it says so last, when they are there.
        """
        namespace, *objects = account_objects(pools, account_id, store)
        is_new = not self._holds(namespace)
        if is_new:
            metadata = {key: value for key, value in namespace["metadata"].items() if key != "annotations"}
            self._apply({**namespace, "metadata": metadata})
        for document in objects:
            self._settle(document)
        if is_new:
            self._apply(namespace)

    def _find(self, deployment_uid: str, document: Manifest) -> Document | None:
        """The Deployment that is there. One that lost its labels is not seen, and must not be made anew."""
        metadata = document["metadata"]
        found = self._deployment(deployment_uid)
        found = found or self.cluster.find(DEPLOYMENT, metadata["namespace"], metadata["name"])
        if found is not None and found["metadata"].get("deletionTimestamp"):
            raise RuntimeUnavailable("what was there before is still being deleted")
        return found

    def observe(self, spec: FleetSpec, place: Place, store: dict[str, str]) -> FleetObservation:
        found = self._deployment(spec.deployment_uid)
        replicas = self.replicas(spec.deployment_uid)
        if found is None:
            return FleetObservation(replicas, exists=bool(replicas))
        budget = self.cluster.budget_version
        wanted = [
            *account_objects(place.pools, spec.account_id, store),
            *fleet_objects(spec, place, store, budget, found["metadata"]["uid"]),
        ]
        seen = [each for each in wanted if each["kind"] in SEEN]
        settled = not found["metadata"].get("deletionTimestamp") and all(self._holds(each) for each in seen)
        return FleetObservation(replicas, settled, True, *_shortage(found))

    def take_news(self) -> FleetNews:
        changed = self.view.take_changed()
        return FleetNews(
            frozenset(value for label, value in changed if label == UID_LABEL and is_uid(value)),
            frozenset(value for label, value in changed if label == ACCOUNT_LABEL),
            self.view.take_return(),
        )

    def replicas(self, deployment_uid: str) -> dict[str, ReplicaObservation]:
        found: dict[str, ReplicaObservation] = {}
        for pod in self.view.group("Pod", deployment_uid):
            lives = replicas_of(pod)
            key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
            self._pods |= dict.fromkeys(lives, key)
            found |= lives
        if len(self._pods) > REMEMBERED_PODS:
            self._pods.clear()
        return found

    def pod_of(self, replica_uid: str) -> Document | None:
        if replica_uid not in self._pods:
            for uid in self.view.groups("Pod"):
                self.replicas(uid)
        key = self._pods.get(replica_uid)
        pod = self.view.get("Pod", key) if key else None
        return pod if pod and replica_uid in replicas_of(pod) else None

    def has(self, deployment_uid: str) -> bool:
        return any(self.view.group(kind, deployment_uid) for kind in ("Pod", *OF_FLEETS))

    def remove(self, deployment_uid: str) -> None:
        """The Deployment, in the foreground: it goes when its pods are gone, and takes along what it owns."""
        for found in self.view.group("Deployment", deployment_uid):
            metadata = found["metadata"]
            if not metadata.get("deletionTimestamp"):
                self.tell(found, "Deleting", "the deployment was deleted, or moved to another cluster")
                self.cluster.delete(DEPLOYMENT, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        if not self.view.group("Deployment", deployment_uid):
            for kind, found in self._orphans(deployment_uid):
                metadata = found["metadata"]
                self.cluster.delete(
                    self.cluster.kind(kind), metadata["namespace"], metadata["name"], uid=metadata["uid"]
                )

    def create(self, document: Manifest) -> None:
        """What is there already, under that name, stays as it is."""
        try:
            self.cluster.create(document)
        except Conflict:
            log.info("%s %s is there already", document["kind"], document["metadata"]["name"])

    def say_serving(self, pod: Document, serving: bool) -> None:
        said = {"type": SERVING_GATE, "status": str(serving), "lastTransitionTime": _now()}
        metadata = pod["metadata"]
        try:
            self.cluster.patch_status(POD, metadata["namespace"], metadata["name"], {"conditions": [said]})
        except Refused as error:  # it is gone, or about to be
            log.info("pod %s was not told that it serves: %s", metadata["name"], error)

    def tell(self, about: Document, reason: str, message: str, *, warning: bool = False) -> None:
        """A Kubernetes event; that it cannot be written changes nothing."""
        try:
            self.cluster.create(_event(about, reason, message, "Warning" if warning else "Normal"))
        except (Refused, RuntimeUnavailable) as error:
            log.info("the event %s was not written: %s", reason, error)

    def close(self) -> None:
        self.view.close()
        self.trainers.close()
        self.cluster.close()

    def _deployment(self, uid: str) -> Document | None:
        found = self.view.group("Deployment", uid)
        return found[0] if found else None

    def _holds(self, document: Manifest) -> bool:
        metadata = document["metadata"]
        found = self.view.get(document["kind"], (metadata.get("namespace", ""), metadata["name"]))
        return found is not None and _is_as_declared(document, found)

    def _settle(self, document: Manifest) -> None:
        """What cannot be seen is applied in any case."""
        if document["kind"] not in SEEN:
            self.cluster.apply(document)
        elif not self._holds(document):
            self._apply(document)

    def _apply(self, document: Manifest) -> Document:
        found = self.cluster.apply(document)
        self.view.learn(found)
        return found

    def _orphans(self, uid: str) -> Iterator[tuple[str, Document]]:
        """What a Deployment that was deleted without them left behind."""
        for kind in ("Service", "PodDisruptionBudget", "ServiceAccount"):
            for found in self.view.group(kind, uid):
                if not found["metadata"].get("deletionTimestamp"):
                    yield kind, found

    def _tell_change(self, now: Document, before: Document | None, spec: FleetSpec) -> None:
        if before is None:
            self.tell(now, "Created", f"{spec.deployment_name} wants {spec.replicas} replicas")
            return
        was = before["spec"].get("replicas")
        if was != spec.replicas:
            said = f"{spec.deployment_name} wants {spec.replicas} replicas instead of {was}"
            self.tell(now, "Scaled", said)
        if before["spec"]["template"] != now["spec"]["template"]:
            self.tell(now, "Updated", f"its pods are replaced by those of generation {spec.generation}")


def _is_as_declared(document: Manifest, found: Document) -> bool:
    """With everything that it is to have, and nothing that it was to have once."""
    return holds(document, found) and not is_left_over(document, owned_fields(found, FIELD_MANAGER))


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _shortage(deployment: Document) -> tuple[str, str]:
    """(reason, message): why pods cannot even be made."""
    failing = condition(deployment, "ReplicaFailure")
    if failing.get("status") != "True":
        return "", ""
    return str(failing.get("reason") or "FailedCreate"), str(failing.get("message") or "")


def _event(about: Document, reason: str, message: str, kind: str) -> Manifest:
    metadata, moment = about["metadata"], _now()
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "reason": reason,
        "message": message[:1000],
        "type": kind,
        "source": {"component": FIELD_MANAGER},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
