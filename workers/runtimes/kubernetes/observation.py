"""What a pod's status says of the replicas that it is, and was. Pure.

A replica is one life of one engine: each restart of a pod's containers is a new one. Its uid is made of the
pod's and of the number of restarts, so that everybody who looks comes to the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from workers.runtimes.base import Endpoint, EngineFailure, EnginePhase, ProcessState, ReplicaObservation
from workers.runtimes.engine_failure import ended_by_signal, failure_reason
from workers.runtimes.kubernetes.manifests import ENGINE, ENGINE_PORT, GENERATION_LABEL, SERVING_GATE, STAGING
from workers.runtimes.kubernetes.pod import SIGNALLED

Document = Mapping[str, Any]

BACKING_OFF = "CrashLoopBackOff"
EVICTED = "EVICTED"
PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu")
OUT_OF_MEMORY = EngineFailure(
    "RESOURCE_EXHAUSTED",
    "OUT_OF_MEMORY",
    "out of memory: the engine took more memory than its pod may have",
    retryable=True,
)
RUNNING = ReplicaObservation(ProcessState.RUNNING)


@dataclass(frozen=True)
class Life:
    """One container's part in the lives of its pod."""

    restarts: int = 0
    running: bool = False
    ready: bool = False
    waiting: Document | None = None
    ended: Document | None = None
    """How its current life ended."""
    ended_before: Document | None = None
    """How the one before it ended."""

    @classmethod
    def of(cls, pod: Document, listed: str, name: str) -> Life:
        statuses = (pod.get("status") or {}).get(listed) or []
        status = next((each for each in statuses if each["name"] == name), None)
        if status is None:
            return cls()
        now, before = status.get("state") or {}, (status.get("lastState") or {}).get("terminated")
        waiting, ended = now.get("waiting"), now.get("terminated")
        if waiting and waiting.get("reason") == BACKING_OFF:
            ended, before = before, None
        return cls(
            restarts=int(status.get("restartCount") or 0),
            running="running" in now,
            ready=bool(status.get("ready")),
            waiting=waiting,
            ended=ended,
            ended_before=before,
        )


def replica_uid(pod: Document, life: int) -> str:
    return str(uuid.uuid5(uuid.UUID(pod["metadata"]["uid"]), str(life)))


def replicas_of(pod: Document) -> dict[str, ReplicaObservation]:
    """By uid: the life that goes on, one that has just ended, and one that is to come."""
    staging, engine = (
        Life.of(pod, "initContainerStatuses", STAGING),
        Life.of(pod, "containerStatuses", ENGINE),
    )
    number = staging.restarts + engine.restarts
    found: dict[str, ReplicaObservation] = {}
    if failure := _pods_failure(pod):
        return {replica_uid(pod, number): _ended(pod, failure)}
    before = engine.ended_before if engine.running else None
    if before and number:
        found[replica_uid(pod, number - 1)] = _ended(pod, _failure_of(before))
    broken = engine.ended or (staging.ended if _failed(staging.ended) else None)
    if broken is None:
        return {**found, replica_uid(pod, number): _current(pod, staging, engine)}
    found[replica_uid(pod, number)] = _ended(pod, _failure_of(broken))
    if not _is_leaving(pod):
        waiting = engine.waiting or staging.waiting or {}
        message = str(waiting.get("message") or "the cluster is about to start the engine again")
        coming = replace(RUNNING, phase=EnginePhase.SCHEDULING, message=message, reason=BACKING_OFF)
        found[replica_uid(pod, number + 1)] = _placed(pod, coming)
    return found


def _current(pod: Document, staging: Life, engine: Life) -> ReplicaObservation:
    if engine.running:
        phase = EnginePhase.SERVING if _is_healthy(pod, engine) else EnginePhase.LOADING
        words = "" if phase is EnginePhase.SERVING else "the engine is starting: loading the weights"
        seen = replace(RUNNING, phase=phase, healthy=phase is EnginePhase.SERVING, message=words)
    elif staging.running:
        seen = replace(
            RUNNING, phase=EnginePhase.STAGING, message="the engine is starting: staging the weights"
        )
    else:
        reason, message = _why_it_waits(pod, staging, engine)
        seen = replace(RUNNING, phase=EnginePhase.SCHEDULING, reason=reason, message=message)
    return _placed(pod, replace(seen, leaving=_is_leaving(pod)))


def _why_it_waits(pod: Document, staging: Life, engine: Life) -> tuple[str, str]:
    """(reason, message): the scheduler's, or the kubelet's."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        said = str(scheduled.get("message") or "").rstrip(".")
        message = f"no node has room: {said}" if said else "waiting for a node"
        return str(scheduled.get("reason") or "Unschedulable"), message
    waiting = (engine.waiting if staging.ended else staging.waiting) or {}
    reason, said = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in PULLING:
        return reason, f"the engine's image cannot be pulled: {said or reason}"
    if said:
        return reason, f"the node cannot start the engine: {said}"
    placed = bool((pod.get("spec") or {}).get("nodeName"))
    return "", "the engine is starting: pulling its image" if placed else "waiting for a node"


def _placed(pod: Document, seen: ReplicaObservation) -> ReplicaObservation:
    address = (pod.get("status") or {}).get("podIP")
    generation = int((pod["metadata"].get("labels") or {}).get(GENERATION_LABEL) or 0)
    return replace(
        seen,
        generation=generation,
        endpoint=Endpoint(str(address), ENGINE_PORT) if address else None,
        accelerators=_accelerators(pod),
        serving=condition(pod, SERVING_GATE).get("status") == "True",
    )


def _accelerators(pod: Document) -> int:
    containers = (pod.get("spec") or {}).get("containers") or []
    requests = [(each.get("resources") or {}).get("limits") or {} for each in containers]
    return sum(int(each.get(name) or 0) for each in requests for name in GPU_RESOURCES)


def _is_healthy(pod: Document, engine: Life) -> bool:
    """Its readiness probe passes, and its node is heard of.

    A node that died leaves everything as it was; then the controllers make the pod not ready, and alone of
    all who do so they give no reason.
    """
    ready = condition(pod, "Ready")
    lost = ready.get("status") == "False" and not ready.get("reason")
    return engine.ready and condition(pod, "ContainersReady").get("status") == "True" and not lost


def _is_leaving(pod: Document) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _failed(ended: Document | None) -> bool:
    return ended is not None and int(ended.get("exitCode") or 0) != 0


def _pods_failure(pod: Document) -> EngineFailure | None:
    """Of the pod as a whole: evicted, or refused by its node."""
    status = pod.get("status") or {}
    if status.get("phase") != "Failed":
        return None
    reason, said = str(status.get("reason") or "Failed"), str(status.get("message") or "")
    return EngineFailure(
        "UNAVAILABLE", EVICTED, f"the node ended the pod: {reason}: {said}".rstrip(": "), retryable=True
    )


def _failure_of(ended: Document) -> EngineFailure:
    """From how a container ended and its last words."""
    code, said = int(ended.get("exitCode") or 0), str(ended.get("message") or "")
    if ended.get("reason") == "OOMKilled":
        return OUT_OF_MEMORY
    return ended_by_signal(code - SIGNALLED, said) if code > SIGNALLED else failure_reason(said)


def _ended(pod: Document, failure: EngineFailure) -> ReplicaObservation:
    """While the pod is being stopped, that its engine ends is nobody's failure."""
    stopped = _is_leaving(pod)
    seen = ReplicaObservation(ProcessState.EXITED, stopped=stopped, failure=None if stopped else failure)
    return _placed(pod, seen)


def condition(document: Document, kind: str) -> Document:
    conditions = (document.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each.get("type") == kind), {})
