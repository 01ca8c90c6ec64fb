"""The plan for a deployment whose replicas a cluster keeps, row by row."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from workers.reconcile.deployment_view import (
    AdapterView,
    DeployedModelView,
    DeploymentView,
    ReplicaView,
    Status,
)
from workers.reconcile.fleet_plan import FleetPlan, plan_fleet
from workers.runtimes.base import EngineFailure, EnginePhase, ProcessState, ReplicaObservation

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ONE, TWO, ADDON = uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=9)
RUNNING = ReplicaObservation(ProcessState.RUNNING, EnginePhase.SCHEDULING)
STAGING = replace(RUNNING, phase=EnginePhase.STAGING)
LOADING = replace(RUNNING, phase=EnginePhase.LOADING)
HEALTHY = replace(RUNNING, phase=EnginePhase.SERVING, healthy=True)
TOLD = replace(HEALTHY, serving=True)
SILENT = replace(LOADING, serving=True)
LEAVING = replace(TOLD, leaving=True)
ABSENT = ReplicaObservation(ProcessState.ABSENT)
CRASH = EngineFailure("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", "out of memory", retryable=True)
CRASHED = ReplicaObservation(ProcessState.EXITED, failure=CRASH)
STOPPED = ReplicaObservation(ProcessState.EXITED, stopped=True)
REFUSED = EngineFailure("RESOURCE_EXHAUSTED", "DOES_NOT_FIT", "the model does not fit")


def replica(state: str, seen: ReplicaObservation, **values: Any) -> ReplicaView:
    known = {"was_ready": state == "READY", **values}
    return ReplicaView(ONE, state, NOW, NOW, seen=seen, **known)


def plan(*replicas: ReplicaView, desired: int = 1, state: str = "CREATING", **values: Any) -> FleetPlan:
    refused, found = values.pop("refused", None), values.pop("found", {})
    view = DeploymentView(Status(state), desired, replicas=tuple(replicas), **values)
    return plan_fleet(view, found, NOW, refused)


ROWS = [
    # row, what is seen, the row after it, whether it is forgotten
    ("PENDING", RUNNING, "PENDING", False),
    ("PENDING", STAGING, "STARTING", False),
    ("PENDING", LOADING, "STARTING", False),
    ("STARTING", LOADING, "LOADING", False),
    ("LOADING", STAGING, "LOADING", False),
    ("PENDING", HEALTHY, "STARTING", False),
    ("LOADING", HEALTHY, "READY", False),
    ("READY", TOLD, "READY", False),
    ("READY", SILENT, "READY", False),
    ("READY", LEAVING, "STOPPING", False),
    ("STOPPING", LEAVING, "STOPPING", False),
    ("STOPPING", ABSENT, "STOPPING", True),
    ("READY", ABSENT, "READY", True),
    ("PENDING", ABSENT, "PENDING", True),
    ("READY", CRASHED, "STOPPING", True),
    ("STOPPING", CRASHED, "STOPPING", True),
    ("READY", STOPPED, "READY", True),
]


@pytest.mark.parametrize(("before", "seen", "after", "forgotten"), ROWS)
def test_a_row_follows_its_replica(
    before: str, seen: ReplicaObservation, after: str, forgotten: bool
) -> None:
    (step,) = plan(replica(before, seen)).steps
    assert (step.state, step.remove) == (after, forgotten)


SERVING = [
    # row, what is seen, what the cluster is told
    ("LOADING", HEALTHY, {ONE: True}),
    ("READY", TOLD, {}),
    ("READY", LEAVING, {}),
    ("LOADING", LOADING, {}),
    ("LOADING", SILENT, {ONE: False}),
    ("READY", CRASHED, {}),
]


@pytest.mark.parametrize(("before", "seen", "told"), SERVING)
def test_the_cluster_is_told_who_serves_when_it_believes_otherwise(
    before: str, seen: ReplicaObservation, told: dict[uuid.UUID, bool]
) -> None:
    assert plan(replica(before, seen)).serving == told


def test_what_appears_gets_a_row_and_what_has_ended_or_leaves_gets_none() -> None:
    found = {TWO: STAGING, uuid.UUID(int=3): CRASHED, uuid.UUID(int=4): LEAVING, ONE: TOLD}
    assert plan(replica("READY", TOLD), found=found).appeared == {TWO: STAGING}


@pytest.mark.parametrize(
    ("state", "desired", "kept"), [("CREATING", 2, 2), ("READY", 0, 0), ("FAILED", 2, 0), ("DELETING", 2, 0)]
)
def test_the_cluster_keeps_as_many_as_are_wanted(state: str, desired: int, kept: int) -> None:
    assert plan(state=state, desired=desired).replicas == kept


def test_a_silent_engine_goes_out_of_service_after_three_looks_and_is_left_to_the_cluster() -> None:
    was = replica("READY", SILENT, health_misses=2, unhealthy_since=NOW - timedelta(minutes=5))
    (step,) = plan(was).steps
    assert (step.state, step.failure) == ("LOADING", None)
    assert step.message == "the engine has not answered its health check for 300 s"


def test_five_crashes_without_a_ready_replica_are_the_end() -> None:
    last = plan(replica("LOADING", CRASHED), failures=4)
    assert (last.give_up, last.replicas) == (CRASH, 0)


def test_crashes_beside_a_replica_that_serves_never_are() -> None:
    serving = replace(replica("READY", TOLD), uid=TWO)
    found = plan(replica("LOADING", CRASHED), serving, failures=40)
    assert (found.give_up, found.replicas, found.failures) == (None, 1, 41)


def test_what_cannot_be_declared_fails_unless_an_earlier_replica_serves() -> None:
    assert plan(refused=REFUSED).give_up == REFUSED
    assert plan(replica("READY", TOLD), refused=REFUSED).give_up is None
    assert plan(refused=REFUSED, state="FAILED").give_up is None


def test_an_addon_is_loaded_before_a_replica_is_ready() -> None:
    addon = DeployedModelView(ADDON, "DEPLOYING", is_addon=True)
    found = plan(replica("LOADING", HEALTHY), models=(addon,))
    assert ([step.state for step in found.steps], found.serving) == (["LOADING"], {})
    assert [move.deployed_model for move in found.load] == [ADDON]
    proven = replica("LOADING", HEALTHY, adapters={ADDON: AdapterView(proven=True)})
    assert plan(proven, models=(addon,)).serving == {ONE: True}
