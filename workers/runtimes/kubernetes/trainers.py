"""Trainers on Kubernetes: an attempt at a fine-tuning job is a Job with one pod, seen through watches.

Never two of a job at once: an attempt begins when each earlier pod is known to have ended, as its node says,
or is gone from the cluster, as it is when its node was removed. Of one attempt's pods one trains: see
`trainer_pod`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from controlplane.config import Settings
from workers.runtimes.base import (
    NeverFits,
    NoCapacity,
    ProcessState,
    RuntimeUnavailable,
    TrainerObservation,
    TrainerSpec,
    Waiting,
)
from workers.runtimes.kubernetes.cluster import JOB, POD, Document, Refused
from workers.runtimes.kubernetes.fleets import LASTING
from workers.runtimes.kubernetes.manifests import Manifest, Place, namespace_of, resources
from workers.runtimes.kubernetes.quota import shortage
from workers.runtimes.kubernetes.site import Site
from workers.runtimes.kubernetes.sites import Sites
from workers.runtimes.kubernetes.trainer_log import TrainerLogs
from workers.runtimes.kubernetes.trainer_manifests import (
    ATTEMPT_LABEL,
    GRACE_SECONDS,
    account,
    account_of,
    job,
    owned_objects,
)
from workers.runtimes.kubernetes.trainer_observation import has_begun, has_ended, is_ready, observe
from workers.runtimes.kubernetes.trainer_size import place_trainer
from workers.runtimes.kubernetes.view import is_uid
from workers.runtimes.node_settings import object_store_environment


class KubernetesTrainers:
    """Keeps nothing that matters: any worker sees and does the same."""

    def __init__(self, settings: Settings, sites: Sites | None = None) -> None:
        self._sites = sites or Sites.from_settings(settings)
        self._store = object_store_environment(settings)
        self._logs = TrainerLogs()

    def start_trainer(self, spec: TrainerSpec) -> None:
        """Start the attempt; nothing happens where it runs. Raises NoCapacity, RuntimeUnavailable."""
        place = place_trainer(spec, self._sites.pools)
        self._require_the_end_of_others(spec)
        site = self._sites.of(place.pool.context)
        try:
            _require_quota(site, spec, place)
            site.prepare_account(place.pools, account_of(spec), self._store)
            _require_quota(site, spec, place)  # only now does a new account have one
            self._create(site, spec, place)
        except Refused as error:
            if error.status in LASTING:
                raise NeverFits(f"the cluster refuses it: {error.message}") from error
            raise NoCapacity(f"the cluster refuses it for now: {error.message}") from error

    def observe_trainer(self, job_uid: str, attempt: int) -> TrainerObservation:
        """A cluster that is silent may have it, unless another one does."""
        absent = TrainerObservation(ProcessState.ABSENT)
        if not attempt:
            return absent
        looks, silent = self._sites.each(lambda site: _look(site, job_uid, attempt))
        found = next((seen for seen in looks if seen.state is not ProcessState.ABSENT), None)
        if found is None and silent:
            raise RuntimeUnavailable("; ".join(silent))
        return found or absent

    def stop_trainer(self, job_uid: str, attempt: int, grace_seconds: float = GRACE_SECONDS) -> None:
        """Does not wait. Of several requests the earliest end counts."""
        grace = max(math.ceil(grace_seconds), 1)
        stopped, silent = self._sites.each(lambda site: _stop(site, job_uid, attempt, grace))
        if silent and not any(stopped):
            raise RuntimeUnavailable("; ".join(silent))

    def remove_trainer(self, job_uid: str, attempt: int) -> bool:
        """Whether nothing is left of it; nothing is done while it runs."""
        if self.observe_trainer(job_uid, attempt).state is ProcessState.RUNNING:
            return False
        return not any(self._sites.all(lambda site: _remove(site, job_uid, attempt)))

    def list_trainers(self) -> frozenset[tuple[str, int]]:
        found, _ = self._sites.each(lambda site: frozenset(_attempts(site)))
        return frozenset().union(*found)

    def ended_trainers(self) -> frozenset[tuple[str, int]]:
        found, _ = self._sites.each(lambda site: frozenset(_ended(site)), silently=True)
        return frozenset().union(*found)

    def read_trainer_log(self, job_uid: str, attempt: int, start: int, length: int) -> tuple[int, bytes]:
        for site, pod in self._sites_with_pods(job_uid, attempt):
            if has_begun(pod):
                return self._logs.read(site.cluster, pod, start, length, ended=has_ended(pod))
            break
        return start, b""

    def _sites_with_pods(self, job_uid: str, attempt: int) -> Iterator[tuple[Site, Document]]:
        """The pod that came first, as far as it is still there: it is the one that trains."""
        found, _ = self._sites.each(lambda site: (site, _seen(site, job_uid, attempt)[1]))
        for site, pods in found:
            for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp"))):
                yield site, pod

    def _require_the_end_of_others(self, spec: TrainerSpec) -> None:
        """Raises NoCapacity while an earlier trainer of the job may be at work."""
        for site in self._sites.all(lambda site: site):
            for pod in site.trainers.group("Pod", spec.job_uid):
                if _attempt(pod) != spec.attempt and not has_ended(pod):
                    node = (pod.get("spec") or {}).get("nodeName") or "no node yet"
                    raise NoCapacity(f"the trainer before it, on {node}, has not ended yet")
            found, _ = _seen(site, spec.job_uid, spec.attempt)
            if found is not None and found["metadata"].get("deletionTimestamp"):
                raise NoCapacity("what was there of it before is still being removed")

    def _create(self, site: Site, spec: TrainerSpec, place: Place) -> None:
        """The Job first, which owns the rest; that it is whole is said last."""
        keys = {**self._store, **spec.env}
        site.cluster.apply(account(spec, place.pools))
        found = site.cluster.apply(job(spec, place, keys))
        for document in owned_objects(spec, place, keys, found["metadata"]["uid"]):
            site.create(document)
        if not is_ready(found):
            found = site.cluster.apply(job(spec, place, keys, ready=True))
            site.tell(found, "Started", f"attempt {spec.attempt} of {spec.document['job_name']}")
        site.trainers.learn(found)


def _require_quota(site: Site, spec: TrainerSpec, place: Place) -> None:
    """Raises NoCapacity: a Job whose pod the quota forbids would try ever more seldom."""
    found, _ = _seen(site, spec.job_uid, spec.attempt)
    namespace = namespace_of(place.pools, account_of(spec))
    if found is None and (missing := _shortage(site, namespace, resources(place))):
        raise NoCapacity(missing)


def _look(site: Site, job_uid: str, attempt: int) -> TrainerObservation:
    found, pods = _seen(site, job_uid, attempt)
    seen = observe(found, pods)
    if found is None or pods or not seen.message:
        return seen
    container = found["spec"]["template"]["spec"]["containers"][0]
    missing = _shortage(site, found["metadata"]["namespace"], container["resources"])
    return replace(seen, reason=Waiting.NO_CAPACITY, message=missing) if missing else seen


def _shortage(site: Site, namespace: str, wanted: Manifest) -> str:
    quota = site.view.get("ResourceQuota", (namespace, "account"))
    return shortage(quota, wanted) if quota is not None else ""


def _seen(site: Site, job_uid: str, attempt: int) -> tuple[Document | None, list[Document]]:
    jobs = [each for each in site.trainers.group("Job", job_uid) if _attempt(each) == attempt]
    pods = [each for each in site.trainers.group("Pod", job_uid) if _attempt(each) == attempt]
    return (jobs[0] if jobs else None), pods


def _stop(site: Site, job_uid: str, attempt: int, grace_seconds: int) -> bool:
    """Whether it was there. The Job goes first: one that is being deleted makes no other pod."""
    found, pods = _seen(site, job_uid, attempt)
    if found is not None:
        _delete_job(site, found)
    for pod in pods:
        metadata = pod["metadata"]
        given = metadata.get("deletionGracePeriodSeconds")
        if not has_ended(pod) and (given is None or given > grace_seconds):
            names = metadata["namespace"], metadata["name"]
            site.cluster.delete(POD, *names, uid=metadata["uid"], grace_seconds=grace_seconds)
    return found is not None or bool(pods)


def _remove(site: Site, job_uid: str, attempt: int) -> bool:
    """Whether anything is left, on its way out as it may be."""
    found, pods = _seen(site, job_uid, attempt)
    if found is not None:
        _delete_job(site, found)
    for pod in pods if found is None else ():
        metadata = pod["metadata"]
        if not metadata.get("deletionTimestamp"):
            site.cluster.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"])
    return found is not None or bool(pods)


def _delete_job(site: Site, found: Document) -> None:
    """In the foreground: it goes when its pods are gone."""
    metadata = found["metadata"]
    if not metadata.get("deletionTimestamp"):
        site.cluster.delete(JOB, metadata["namespace"], metadata["name"], uid=metadata["uid"])


def _attempts(site: Site) -> Iterator[tuple[str, int]]:
    for kind in ("Job", "Pod"):
        for job_uid in filter(is_uid, site.trainers.groups(kind)):
            for each in site.trainers.group(kind, job_uid):
                yield job_uid, _attempt(each)


def _ended(site: Site) -> Iterator[tuple[str, int]]:
    for job_uid, attempt in set(_attempts(site)):
        seen = observe(*_seen(site, job_uid, attempt))
        if seen.state in (ProcessState.EXITED, ProcessState.LOST):
            yield job_uid, attempt


def _attempt(found: Document) -> int:
    """0 where somebody has taken the label away, which is an attempt that no job has."""
    said = str((found["metadata"].get("labels") or {}).get(ATTEMPT_LABEL) or "")
    return int(said) if said.isdecimal() else 0
