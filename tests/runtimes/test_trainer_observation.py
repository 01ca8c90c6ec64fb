"""What is read from a Job and its pods, row by row; the documents are as API servers give them."""

from __future__ import annotations

from typing import Any

import pytest

from workers.runtimes.base import ProcessState, TrainerObservation
from workers.runtimes.kubernetes.trainer_observation import observe

ABSENT, RUNNING, EXITED, LOST = (
    ProcessState.ABSENT,
    ProcessState.RUNNING,
    ProcessState.EXITED,
    ProcessState.LOST,
)
READY = {"type": "Ready", "status": "True"}
UP = {"type": "ContainersReady", "status": "True"}


def job(*, ready: bool = True, leaving: bool = False, condition: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {"annotations": {"hearth.dev/ready": "true"} if ready else {}}
    if leaving:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": condition, "status": "True"}] if condition else []
    return {"metadata": metadata, "status": {"conditions": conditions}}


def pod(
    phase: str = "Running",
    *,
    state: dict[str, Any] | None = None,
    conditions: tuple[dict[str, Any], ...] = (READY, UP),
    node: str = "one",
    leaving: bool = False,
    **status: Any,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    if leaving:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    statuses = [{"name": "trainer", "state": state if state is not None else {"running": {}}}]
    limits = {"resources": {"limits": {"memory": "1Gi"}}}
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "trainer", **limits}], **({"nodeName": node} if node else {})},
        "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": statuses, **status},
    }


def ended(code: int, reason: str = "Error", phase: str = "Failed", **more: Any) -> dict[str, Any]:
    record = {"exitCode": code, "reason": reason, "message": "last words"}
    return pod(phase, state={"terminated": record}, **more)


def seen(state: ProcessState, **values: Any) -> TrainerObservation:
    return TrainerObservation(state, log_tail="last words", **values)


@pytest.mark.parametrize(
    ("found", "pods", "state"),
    [
        (None, [], ABSENT),
        (job(), [], RUNNING),  # its pod is about to be made
        (job(ready=False), [pod("Pending", state={})], ABSENT),  # whoever made it died before the Secret
        (job(ready=False, leaving=True), [pod()], RUNNING),
        (job(), [pod()], RUNNING),
        (job(leaving=True), [pod(leaving=True)], RUNNING),
        (None, [pod(leaving=True)], RUNNING),  # the Job was deleted without its pod
        (job(leaving=True), [], ABSENT),
        (job(condition="Failed"), [], LOST),  # its pod was deleted
        (job(condition="Complete"), [], EXITED),
        (job(), [ended(0, "Completed", "Succeeded")], EXITED),
        (job(), [ended(1), pod()], RUNNING),  # of two pods one may be at work
    ],
)
def test_states(found: Any, pods: list[Any], state: ProcessState) -> None:
    assert observe(found, pods).state is state


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ended(0, "Completed", "Succeeded"), seen(EXITED, exit_code=0)),
        (ended(1), seen(EXITED, exit_code=1)),
        (ended(75), seen(EXITED, exit_code=75)),
        (ended(143), seen(EXITED, exit_code=143)),
        (ended(143, leaving=True), seen(EXITED, exit_code=143, stopped=True)),
        (ended(137), seen(EXITED, signal=9)),
        (ended(139), seen(EXITED, signal=11)),
        (
            ended(137, "OOMKilled"),
            seen(EXITED, signal=9, memory={"total": 1 << 30, "available": 0, "oom_kills": 1}),
        ),
        (pod("Failed", state={"terminated": {"exitCode": 137}}, reason="Evicted"), TrainerObservation(LOST)),
        (pod("Failed", state={}, reason="Evicted"), TrainerObservation(LOST)),
        (ended(137, conditions=({"type": "DisruptionTarget", "status": "True"},)), seen(LOST)),
    ],
)
def test_how_it_ended_is_told_as_a_process_of_a_node_tells_it(
    found: Any, expected: TrainerObservation
) -> None:
    assert observe(job(), [found]) == expected


UNSCHEDULED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
}


@pytest.mark.parametrize(
    ("found", "reason", "message"),
    [
        (pod(), "", ""),
        (pod("Pending", state={}, conditions=(), node=""), "WAITING_FOR_NODE", "waiting for a node"),
        (
            pod("Pending", state={}, conditions=(UNSCHEDULED,), node=""),
            "NO_CAPACITY",
            "no node has room: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu",
        ),
        (
            pod("Pending", state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}),
            "IMAGE_NOT_PULLED",
            "the trainer's image cannot be pulled: no such image",
        ),
        (
            pod("Pending", state={"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}}),
            "WAITING_FOR_NODE",
            "the node cannot start the trainer: no key",
        ),
        (
            pod(conditions=({"type": "Ready", "status": "False"}, UP)),
            "NODE_LOST",
            "the node one does not answer: the trainer may be at work there, and goes on when the node is "
            "back; once the node is removed from the cluster, another one goes on from the last checkpoint",
        ),
    ],
)
def test_why_it_is_not_at_work_is_told(found: Any, reason: str, message: str) -> None:
    looked = observe(job(), [found])
    assert (looked.state, looked.reason, looked.message) == (RUNNING, reason, message)
