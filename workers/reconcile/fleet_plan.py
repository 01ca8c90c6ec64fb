"""What is to be done about a deployment whose replicas a cluster keeps. Pure: time is an argument.

The cluster starts, restarts, replaces and stops replicas by itself; Hearth says how many, follows each life
with a row of its own, loads addons on it, and tells the cluster when it serves all that it should. Rows go
through the states of `deployment_plan`, as far as the cluster lets their replicas go.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from controlplane.resources.deployments.states import FAILED, LEAVING, Replica
from workers.reconcile.deployment_plan import (
    ADAPTERS_A_ROUND,
    HEALTH_MISSES,
    UNEXPLAINED,
    AddonMove,
    Step,
    count_failures,
    failed_step,
    healthy_step,
    plan_addons,
)
from workers.reconcile.deployment_view import DeploymentView, ReplicaView
from workers.runtimes.base import EngineFailure, EnginePhase, ProcessState, ReplicaObservation

WAY_UP = (Replica.PENDING, Replica.STARTING, Replica.LOADING)
STATE_OF_PHASE = {
    EnginePhase.SCHEDULING: Replica.PENDING,
    EnginePhase.STAGING: Replica.STARTING,
    EnginePhase.LOADING: Replica.LOADING,
    EnginePhase.SERVING: Replica.LOADING,
}
LEAVES = "the cluster is stopping it"


@dataclass(frozen=True)
class FleetPlan:
    steps: tuple[Step, ...] = ()
    appeared: Mapping[uuid.UUID, ReplicaObservation] = field(default_factory=dict)
    """Replicas that no row speaks of yet."""
    replicas: int = 0
    """How many the cluster is to keep."""
    serving: Mapping[uuid.UUID, bool] = field(default_factory=dict)
    """What the cluster is to be told."""
    load: tuple[AddonMove, ...] = ()
    unload: tuple[AddonMove, ...] = ()
    failures: int = 0
    retry_at: datetime | None = None
    give_up: EngineFailure | None = None


def plan_fleet(
    view: DeploymentView,
    seen: Mapping[uuid.UUID, ReplicaObservation],
    now: datetime,
    refused: EngineFailure | None = None,
) -> FleetPlan:
    """`refused` says that what the deployment asks for cannot be declared at all."""
    steps = [step_of(replica, view, now) for replica in view.replicas if replica.state != Replica.FAILED]
    failures, retry_at, give_up = count_failures(view, steps, now)
    if refused and not any(step.state == Replica.READY for step in steps):
        give_up = refused
    load, unload = plan_addons(view, steps, now)
    known = {replica.uid for replica in view.replicas}
    return FleetPlan(
        steps=tuple(steps),
        appeared={uid: each for uid, each in seen.items() if uid not in known and _is_coming(each)},
        replicas=wanted_replicas(view, give_up),
        serving=news_of_serving(steps),
        load=tuple(load[:ADAPTERS_A_ROUND]),
        unload=tuple(unload[:ADAPTERS_A_ROUND]),
        failures=failures,
        retry_at=retry_at,
        give_up=None if view.state == FAILED else give_up,
    )


def wanted_replicas(view: DeploymentView, give_up: EngineFailure | None = None) -> int:
    return 0 if give_up or view.state in (FAILED, *LEAVING) else view.desired


def step_of(replica: ReplicaView, view: DeploymentView, now: datetime) -> Step:
    """What one replica shows."""
    assert replica.seen is not None
    seen = replica.seen
    same = Step(replica, replica.state, replica.reason, replica.message)
    if seen.state == ProcessState.RUNNING:
        if replica.state == Replica.STOPPING:
            return same
        return (
            Step(replica, Replica.STOPPING, message=LEAVES) if seen.leaving else _running(replica, view, now)
        )
    if seen.state == ProcessState.EXITED and not seen.stopped and replica.state != Replica.STOPPING:
        return replace(failed_step(replica, seen.failure or UNEXPLAINED), remove=True)
    # The cluster took it away, or its node went down with it: nobody's failure, and another one is coming.
    return replace(same, remove=True)


def _running(replica: ReplicaView, view: DeploymentView, now: datetime) -> Step:
    assert replica.seen is not None
    if replica.seen.healthy:
        return healthy_step(replica, view)
    return _missed(replica, now) if replica.was_ready else _coming(replica)


def _missed(replica: ReplicaView, now: datetime) -> Step:
    """A silent engine goes out of service after three looks; the cluster restarts it when that lasts."""
    misses, since = replica.health_misses + 1, replica.unhealthy_since or now
    out = misses >= HEALTH_MISSES
    silent = f"the engine has not answered its health check for {int((now - since).total_seconds())} s"
    return Step(
        replica,
        Replica.LOADING if out else replica.state,
        message=silent if out else replica.message,
        health_misses=misses,
        unhealthy_since=since,
    )


def _coming(replica: ReplicaView) -> Step:
    """A step on the way up, and never back: what a pod shows may flicker."""
    assert replica.seen is not None and replica.seen.phase is not None
    here = WAY_UP.index(replica.state)
    there = WAY_UP.index(STATE_OF_PHASE[replica.seen.phase])
    state = WAY_UP[here + 1] if there > here else replica.state
    return Step(replica, state, reason=replica.seen.reason, message=replica.seen.message)


def _is_coming(seen: ReplicaObservation) -> bool:
    return seen.state == ProcessState.RUNNING and not seen.leaving


def first_state(seen: ReplicaObservation) -> str:
    """Of the row of a replica that has appeared."""
    return STATE_OF_PHASE[seen.phase] if seen.phase else Replica.PENDING


def news_of_serving(steps: Sequence[Step]) -> dict[uuid.UUID, bool]:
    """Of whom the cluster believes something else than what is so."""
    news = {}
    for step in steps:
        seen, serves = step.replica.seen, step.state == Replica.READY and not step.remove
        if seen and _is_coming(seen) and seen.serving != serves:
            news[step.replica.uid] = serves
    return news
