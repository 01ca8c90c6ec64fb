"""What a Job and its pods say of an attempt at a fine-tuning job. Pure.

A Job makes one pod. Of several, as clusters before 1.26 may make them, what counts is whether any of them
may still be at work, and how the newest ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from controlplane.sizing import quantity_bytes
from workers.runtimes.base import ProcessState, TrainerObservation, Waiting
from workers.runtimes.kubernetes.manifests import TRAINER
from workers.runtimes.kubernetes.observation import PULLING, Life, condition
from workers.runtimes.kubernetes.trainer_manifests import READY_ANNOTATION
from workers.runtimes.trainer_pod import SIGNALLED
from workers.training.errors import TO_BE_STARTED_AGAIN

Document = Mapping[str, Any]

SIGKILL = 9
ABSENT = TrainerObservation(ProcessState.ABSENT)
RUNNING = TrainerObservation(ProcessState.RUNNING)
LOST = TrainerObservation(ProcessState.LOST)


def observe(job: Document | None, pods: Sequence[Document]) -> TrainerObservation:
    live = [pod for pod in pods if not has_ended(pod)]
    if job is not None and not is_ready(job):
        return RUNNING if _is_leaving(job) and live else ABSENT
    if live:
        return _waiting(live[0])
    if pods:
        newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""))
        return _ended(newest, stopped=_is_leaving(newest) or (job is not None and _is_leaving(job)))
    return ABSENT if job is None else _without_pods(job)


def has_ended(pod: Document) -> bool:
    """Its node says that nothing of it runs any more. A pod that is gone from the cluster is not asked."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed") or _life(pod).ended is not None


def has_begun(pod: Document) -> bool:
    """Whether its trainer runs, or did: before that there is nothing that it could have printed."""
    return _life(pod).running or has_ended(pod)


def is_ready(job: Document) -> bool:
    """Whether everything that it owns was made."""
    return READY_ANNOTATION in (job["metadata"].get("annotations") or {})


def _without_pods(job: Document) -> TrainerObservation:
    """Its pod is still to come, or was taken away."""
    if condition(job, "Failed").get("status") == "True":
        return LOST
    if condition(job, "Complete").get("status") == "True":
        return TrainerObservation(ProcessState.EXITED, exit_code=0)
    if _is_leaving(job):
        return ABSENT
    return replace(RUNNING, reason=Waiting.WAITING_FOR_NODE, message="waiting for its pod")


def _waiting(pod: Document) -> TrainerObservation:
    """At work, or why not, in the words of the scheduler or the kubelet."""
    reason, message = _why_it_waits(pod)
    return replace(RUNNING, reason=reason, message=message)


def _why_it_waits(pod: Document) -> tuple[str, str]:
    node = (pod.get("spec") or {}).get("nodeName")
    if node and _is_unheard_of(pod):
        said = (
            f"the node {node} does not answer: the trainer may be at work there, and goes on when the node "
            "is back; once the node is removed from the cluster, another one goes on from the last checkpoint"
        )
        return Waiting.NODE_LOST, said
    scheduled = condition(pod, "PodScheduled")
    if not node and scheduled.get("status") == "False":
        said = str(scheduled.get("message") or "").rstrip(".")
        return Waiting.NO_CAPACITY, f"no node has room: {said}" if said else "waiting for a node"
    waiting = _life(pod).waiting or {}
    reason, said = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in PULLING:
        return Waiting.IMAGE_NOT_PULLED, f"the trainer's image cannot be pulled: {said or reason}"
    if said:
        return Waiting.WAITING_FOR_NODE, f"the node cannot start the trainer: {said}"
    return (Waiting.WAITING_FOR_NODE, "waiting for a node") if not node else ("", "")


def _is_unheard_of(pod: Document) -> bool:
    """Of all who make a pod not ready, the controllers that miss its node alone give no reason."""
    ready = condition(pod, "Ready")
    was_up = _life(pod).running and condition(pod, "ContainersReady").get("status") == "True"
    return was_up and ready.get("status") == "False" and not ready.get("reason")


def _ended(pod: Document, *, stopped: bool) -> TrainerObservation:
    """As a process of a node tells it. What a node did to a pod is not the trainer's fault."""
    record, status = _life(pod).ended, pod.get("status") or {}
    said = str((record or {}).get("message") or "")
    disrupted = condition(pod, "DisruptionTarget").get("status") == "True"
    if record is None or status.get("reason") or disrupted:
        return replace(LOST, log_tail=said)
    code = int(record.get("exitCode") or 0)
    ended = TrainerObservation(ProcessState.EXITED, stopped=stopped, log_tail=said)
    if record.get("reason") == "OOMKilled":
        memory = {"total": _memory_of(pod), "available": 0, "oom_kills": 1}
        return replace(ended, signal=SIGKILL, memory=memory)
    if code > SIGNALLED and code not in TO_BE_STARTED_AGAIN:
        return replace(ended, signal=code - SIGNALLED)
    return replace(ended, exit_code=code)


def _memory_of(pod: Document) -> int:
    """Bytes that its trainer may have."""
    for container in pod["spec"]["containers"]:
        if container["name"] == TRAINER:
            limits = (container.get("resources") or {}).get("limits") or {}
            return int(quantity_bytes(str(limits.get("memory") or "0")))
    return 0


def _life(pod: Document) -> Life:
    return Life.of(pod, "containerStatuses", TRAINER)


def _is_leaving(found: Document) -> bool:
    return bool(found["metadata"].get("deletionTimestamp"))
