"""What a pod's status says of replicas, from statuses as kubelets and controllers write them."""

from __future__ import annotations

from typing import Any

import pytest

from workers.runtimes.base import Endpoint, EnginePhase, ProcessState, ReplicaObservation
from workers.runtimes.kubernetes.difference import holds
from workers.runtimes.kubernetes.observation import replica_uid, replicas_of

UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
}
DONE = {"terminated": {"exitCode": 0}}
RUNNING = {"running": {}}
OUT_OF_MEMORY = {"exitCode": 1, "message": "torch.OutOfMemoryError: CUDA out of memory"}
BACKING_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}}
READY = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "True"}]


def pod(
    *,
    staging: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    conditions: list[dict[str, Any]] | None = None,
    status: dict[str, Any] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    return {
        "metadata": {
            "uid": "1a2b3c4d-0000-4000-8000-000000000000",
            "labels": {"hearth.dev/generation": "3"},
            **metadata,
        },
        "spec": {"nodeName": "n", "containers": [{"resources": {"limits": {"nvidia.com/gpu": "2"}}}]},
        "status": {
            "conditions": conditions or [],
            "initContainerStatuses": [{"name": "staging", **staging}] if staging else [],
            "containerStatuses": [{"name": "engine", **engine}] if engine else [],
            **(status or {}),
        },
    }


def only(found: dict[str, ReplicaObservation]) -> ReplicaObservation:
    (seen,) = found.values()
    return seen


COMING = [
    (pod(conditions=[UNSCHEDULABLE]), EnginePhase.SCHEDULING, "Unschedulable", "no node has room: 0/3 nodes"),
    (
        pod(staging={"state": {"waiting": {"reason": "ImagePullBackOff", "message": 'image "x"'}}}),
        EnginePhase.SCHEDULING,
        "ImagePullBackOff",
        'the engine\'s image cannot be pulled: image "x"',
    ),
    (
        pod(staging={"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}}),
        EnginePhase.SCHEDULING,
        "CreateContainerConfigError",
        "the node cannot start the engine: no secret",
    ),
    (pod(), EnginePhase.SCHEDULING, "", "pulling its image"),
    (pod(staging={"state": RUNNING}), EnginePhase.STAGING, "", "staging the weights"),
    (
        pod(staging={"state": DONE}, engine={"state": RUNNING, "ready": False}),
        EnginePhase.LOADING,
        "",
        "loading the weights",
    ),
]


@pytest.mark.parametrize(("status", "phase", "reason", "said"), COMING)
def test_a_replica_on_its_way_says_where_it_is(
    status: dict[str, Any], phase: EnginePhase, reason: str, said: str
) -> None:
    seen = only(replicas_of(status))
    assert (seen.state, seen.phase, seen.healthy, seen.reason) == (ProcessState.RUNNING, phase, False, reason)
    assert said in seen.message


def up(**more: Any) -> dict[str, Any]:
    gate = {"type": "hearth.dev/serving", "status": "True"}
    values = {"conditions": [*READY, gate], "status": {"podIP": "10.0.0.7"}, **more}
    return pod(staging={"state": DONE}, engine={"state": RUNNING, "ready": True}, **values)


def test_a_pod_that_is_up_is_a_replica_with_an_address() -> None:
    seen = only(replicas_of(up()))
    assert (seen.healthy, seen.serving, seen.generation, seen.accelerators) == (True, True, 3, 2)
    assert seen.endpoint == Endpoint("10.0.0.7", 8000)


def test_a_pod_whose_node_is_lost_is_not_healthy_whatever_its_containers_last_said() -> None:
    lost = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}]
    assert not only(replicas_of(up(conditions=lost))).healthy
    closed = [lost[0], {**lost[1], "reason": "ReadinessGatesNotReady"}]
    assert only(replicas_of(up(conditions=closed))).healthy


def test_a_pod_that_is_being_deleted_is_leaving_and_its_end_is_nobodys_failure() -> None:
    assert only(replicas_of(up(deletionTimestamp="2030-01-01T00:00:00Z"))).leaving
    ended = {"state": {"terminated": {"exitCode": 137}}}
    gone = pod(staging={"state": DONE}, engine=ended, deletionTimestamp="2030-01-01T00:00:00Z")
    seen = only(replicas_of(gone))
    assert (seen.state, seen.stopped, seen.failure) == (ProcessState.EXITED, True, None)


def test_a_crash_ends_one_life_and_announces_the_next() -> None:
    crashed = pod(
        staging={"state": DONE},
        engine={"state": BACKING_OFF, "lastState": {"terminated": OUT_OF_MEMORY}, "restartCount": 2},
    )
    found = replicas_of(crashed)
    ended, coming = found[replica_uid(crashed, 2)], found[replica_uid(crashed, 3)]
    assert ended.failure is not None
    assert (ended.state, ended.failure.reason) == (ProcessState.EXITED, "GPU_OUT_OF_MEMORY")
    assert (coming.phase, coming.reason) == (EnginePhase.SCHEDULING, "CrashLoopBackOff")


def test_a_restart_that_nobody_saw_happen_is_seen_by_what_it_left() -> None:
    restarted = pod(
        staging={"state": DONE},
        engine={"state": RUNNING, "lastState": {"terminated": OUT_OF_MEMORY}, "restartCount": 1},
    )
    found = replicas_of(restarted)
    assert found[replica_uid(restarted, 0)].state is ProcessState.EXITED
    assert found[replica_uid(restarted, 1)].state is ProcessState.RUNNING


ENDS = [
    ({"exitCode": 137, "reason": "OOMKilled"}, "OUT_OF_MEMORY"),
    ({"exitCode": 137, "message": ""}, "KILLED"),
    ({"exitCode": 139, "message": ""}, "CRASHED"),
    (
        {
            "exitCode": 1,
            "message": 'HEARTH-ENGINE-ERROR {"code": "NOT_FOUND", "reason": "FILE_MISSING", '
            '"message": "gone", "retryable": false}',
        },
        "FILE_MISSING",
    ),
]


@pytest.mark.parametrize(("ended", "reason"), ENDS)
def test_an_end_has_its_reason(ended: dict[str, Any], reason: str) -> None:
    crashed = pod(staging={"state": {"terminated": ended}})
    failure = replicas_of(crashed)[replica_uid(crashed, 0)].failure
    assert failure is not None
    assert failure.reason == reason


def test_an_evicted_pod_says_what_its_node_said() -> None:
    evicted = up(status={"phase": "Failed", "reason": "Evicted", "message": "the disk is full"})
    failure = only(replicas_of(evicted)).failure
    assert failure is not None
    assert (failure.reason, failure.retryable) == ("EVICTED", True)
    assert failure.message == "the node ended the pod: Evicted: the disk is full"


HELD = [
    ({"a": 1}, {"a": 1, "b": 2}, True),
    ({"a": 1}, {"b": 1}, False),
    ({"a": {}}, {"a": {"b": 1}}, True),
    ({"cpu": "1000m"}, {"cpu": "1"}, True),
    ({"cpu": "2"}, {"cpu": "1"}, False),
    ([{"name": "a"}], [{"name": "b"}, {"name": "a", "x": 1}], True),
    ([{"name": "a"}], [{"name": "b"}], False),
    ({"a": []}, {}, False),
]


@pytest.mark.parametrize(("declared", "found", "held"), HELD)
def test_what_others_add_is_no_difference_and_what_they_change_is(
    declared: Any, found: Any, held: bool
) -> None:
    assert holds(declared, found) is held
