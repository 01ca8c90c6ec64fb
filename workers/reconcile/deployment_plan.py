"""What is to be done about a deployment, decided from what was seen of it. Pure: time is an argument.

A replica goes PENDING → STARTING → LOADING → READY and ends through STOPPING: its row says so a round before
its engine is told, so that the gateway has stopped sending by then. What ended by itself, or was given up,
carries its reason with it and is kept as FAILED; what was stopped because nobody wants it, or was lost with
its machine, is forgotten.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controlplane.resources.deployed_models.states import UNDEPLOYING
from controlplane.resources.deployments.states import FAILED, LEAVING, Replica
from workers.reconcile.backoff import backoff
from workers.reconcile.deployment_view import DeploymentView, ReplicaView
from workers.runtimes.base import EngineFailure, EnginePhase, ProcessState

STAGING_LIMIT = timedelta(hours=2)
LOADING_LIMIT = timedelta(minutes=15)
HEALTH_MISSES = 3
UNHEALTHY_LIMIT = timedelta(seconds=30)

FAILURE_LIMIT = 5
HOPELESS_LIMIT = 2
"""Of failures that nothing but a change of the deployment would cure."""

# A round is bounded, so that its lease holds and its results are seen.
STARTS_A_ROUND = 4
ADAPTERS_A_ROUND = 16


@dataclass(frozen=True)
class Step:
    """One replica after a look at it: where it goes, and what is to be done for that."""

    replica: ReplicaView
    state: str
    reason: str = ""
    message: str = ""
    code: str = "OK"
    failure: EngineFailure | None = None
    """It failed just now."""
    launch: bool = False
    stop: bool = False
    remove: bool = False
    """Nothing of it runs: free what it held."""
    healthy: bool = False
    health_misses: int = 0
    unhealthy_since: datetime | None = None

    @property
    def counts(self) -> bool:
        """Whether it serves, or will."""
        return self.state in Replica.SERVING_OR_COMING and not self.remove

    @property
    def is_change(self) -> bool:
        """Whether its row is to say something else than before."""
        was = self.replica
        return (self.state, self.reason, self.message, self.health_misses) != (
            was.state,
            was.reason,
            was.message,
            was.health_misses,
        )


@dataclass(frozen=True)
class AddonMove:
    replica: uuid.UUID
    deployed_model: uuid.UUID


@dataclass(frozen=True)
class Plan:
    steps: tuple[Step, ...] = ()
    add: int = 0
    """New replicas to start."""
    load: tuple[AddonMove, ...] = ()
    unload: tuple[AddonMove, ...] = ()
    failures: int = 0
    retry_at: datetime | None = None
    give_up: EngineFailure | None = None
    """The deployment has failed, for this reason."""


def plan_deployment(view: DeploymentView, now: datetime) -> Plan:
    steps = [step_of(replica, view, now) for replica in view.replicas if replica.state != Replica.FAILED]
    failures, retry_at, give_up = count_failures(view, steps, now)
    target = 0 if give_up or view.state in (FAILED, *LEAVING) else view.desired
    steps = retire(steps, view.generation, target)
    load, unload = plan_addons(view, steps, now)
    return Plan(
        steps=tuple(steps),
        add=replicas_to_add(steps, target, retry_at, now),
        load=tuple(load[:ADAPTERS_A_ROUND]),
        unload=tuple(unload[:ADAPTERS_A_ROUND]),
        failures=failures,
        retry_at=retry_at,
        give_up=give_up,
    )


def step_of(replica: ReplicaView, view: DeploymentView, now: datetime) -> Step:
    """What one replica's engine shows."""
    assert replica.seen is not None
    state = replica.seen.state
    same = Step(replica, replica.state, replica.reason, replica.message)
    if replica.state == Replica.STOPPING:
        return replace(same, stop=True) if state == ProcessState.RUNNING else replace(same, remove=True)
    if state == ProcessState.RUNNING:
        return _running(replica, view, now)
    if state == ProcessState.ABSENT and replica.state == Replica.PENDING:
        return replace(same, launch=True)
    if state == ProcessState.EXITED and not replica.seen.stopped:
        return replace(failed_step(replica, replica.seen.failure or UNEXPLAINED), remove=True)
    # Its machine or its supervisor went down and took it along: nobody's failure.
    return replace(same, remove=True)


UNEXPLAINED = EngineFailure("INTERNAL", "ENGINE_ENDED", "the engine ended and left no reason", retryable=True)


def failed_step(replica: ReplicaView, failure: EngineFailure) -> Step:
    return Step(replica, Replica.STOPPING, failure.reason, failure.message, failure.code, failure=failure)


def _running(replica: ReplicaView, view: DeploymentView, now: datetime) -> Step:
    assert replica.seen is not None
    if replica.seen.healthy:
        return healthy_step(replica, view)
    if replica.was_ready:
        return _missed(replica, now)
    return _starting(replica, now)


def healthy_step(replica: ReplicaView, view: DeploymentView) -> Step:
    """READY once every addon is proven or known to be broken: a broken one keeps nothing from serving.

    An addon that comes later does not take a READY replica out of service.
    """
    waiting = [addon for addon in wanted_addons(view, replica) if not replica.has_settled(addon)]
    if waiting and replica.state != Replica.READY:
        message = f"the engine is up; addons are being loaded on it ({len(waiting)} to go)"
        state = Replica.STARTING if replica.state == Replica.PENDING else Replica.LOADING
        return Step(replica, state, message=message, healthy=True)
    if replica.state == Replica.PENDING:
        return Step(replica, Replica.STARTING, message="the engine is up", healthy=True)
    return Step(replica, Replica.READY, healthy=True)


def _missed(replica: ReplicaView, now: datetime) -> Step:
    """An engine that was ready does not answer: three looks take it out of service, half a minute ends it."""
    misses, since = replica.health_misses + 1, replica.unhealthy_since or now
    silent = f"the engine has not answered its health check for {int((now - since).total_seconds())} s"
    if misses >= HEALTH_MISSES and now - since >= UNHEALTHY_LIMIT:
        return failed_step(replica, EngineFailure("UNAVAILABLE", "UNHEALTHY", silent, retryable=True))
    state = Replica.LOADING if misses >= HEALTH_MISSES else replica.state
    message = silent if misses >= HEALTH_MISSES else replica.message
    return Step(replica, state, message=message, health_misses=misses, unhealthy_since=since)


def _starting(replica: ReplicaView, now: datetime) -> Step:
    assert replica.seen is not None
    staging = replica.seen.phase in (None, EnginePhase.STAGING) and replica.state != Replica.LOADING
    state = Replica.STARTING if staging or replica.state == Replica.PENDING else Replica.LOADING
    limit = STAGING_LIMIT if staging else LOADING_LIMIT
    words = "staging the weights" if staging else "loading the weights"
    if state == replica.state and now - replica.state_time >= limit:
        message = f"the engine was still {words} after {int(limit.total_seconds() / 60)} minutes"
        return failed_step(
            replica, EngineFailure("DEADLINE_EXCEEDED", "START_TIMEOUT", message, retryable=True)
        )
    return Step(replica, state, message=f"the engine is starting: {words}")


def count_failures(
    view: DeploymentView, steps: Sequence[Step], now: datetime
) -> tuple[int, datetime | None, EngineFailure | None]:
    """(failed rounds in a row, when the next start may be, why to give up).

    A replica that becomes ready ends the row. A deployment that serves is never given up.
    """
    failed = [step.failure for step in steps if step.failure]
    fresh = any(step.state == Replica.READY != step.replica.state for step in steps)
    before = 0 if fresh else view.failures
    if not failed:
        return before, None if fresh else view.retry_at, None
    count = before + 1
    limit = FAILURE_LIMIT if all(failure.retryable for failure in failed) else HOPELESS_LIMIT
    serving = any(step.state == Replica.READY for step in steps)
    over = failed[0] if count >= limit and not serving else None
    return count, now + backoff(count), over


def retire(steps: list[Step], generation: int, target: int) -> list[Step]:
    """Mark what is too much, and what was started for settings that have changed since.

    Those of older settings go one at a time, and only while all newer ones are ready; those that do not
    serve go at once.
    """
    counted = sorted((step for step in steps if step.counts), key=lambda step: _worth(step, generation))
    leaving = counted[: max(len(counted) - target, 0)]
    staying = counted[len(leaving) :]
    old = [step for step in staying if step.replica.generation != generation]
    idle = [step for step in old if step.state != Replica.READY]
    moving = [step for step in steps if step.state != Replica.READY]
    if idle:
        leaving = [*leaving, *idle]
    elif old and not moving and not leaving and len(staying) >= target:
        leaving = [*leaving, old[0]]
    chosen = {step.replica.uid for step in leaving}
    return [_retired(step) if step.replica.uid in chosen else step for step in steps]


def _worth(step: Step, generation: int) -> tuple[bool, bool, float]:
    """What goes first sorts first: not ready, then of older settings, then the newest."""
    replica = step.replica
    return step.state == Replica.READY, replica.generation == generation, -replica.create_time.timestamp()


def _retired(step: Step) -> Step:
    if step.launch:  # never started: there is nothing to stop
        return replace(step, state=Replica.STOPPING, reason="", message="", launch=False, remove=True)
    return Step(step.replica, Replica.STOPPING, message="it is not wanted any more")


def replicas_to_add(steps: Sequence[Step], target: int, retry_at: datetime | None, now: datetime) -> int:
    """How many to start. What is still stopping keeps its place: its memory is not free yet."""
    if retry_at is not None and now < retry_at:
        return 0
    taken = sum(1 for step in steps if not step.remove)
    return min(max(target - taken, 0), STARTS_A_ROUND)


def wanted_addons(view: DeploymentView, replica: ReplicaView) -> list[uuid.UUID]:
    if replica.generation != view.generation:
        return []
    return [model.uid for model in view.models if model.is_addon and model.state != UNDEPLOYING]


def plan_addons(
    view: DeploymentView, steps: Sequence[Step], now: datetime
) -> tuple[list[AddonMove], list[AddonMove]]:
    """(to load, to unload), on the engines that answer."""
    healthy = [step.replica for step in steps if step.healthy and step.state != Replica.STOPPING]
    load = [
        AddonMove(replica.uid, addon)
        for replica in healthy
        for addon in wanted_addons(view, replica)
        if _is_due(replica, addon, now)
    ]
    leaving = [model.uid for model in view.models if model.state == UNDEPLOYING]
    unload = [
        AddonMove(replica.uid, addon) for replica in healthy for addon in leaving if addon in replica.adapters
    ]
    return load, unload


def _is_due(replica: ReplicaView, addon: uuid.UUID, now: datetime) -> bool:
    found = replica.adapters.get(addon)
    if found is None:
        return True
    return not found.proven and (found.retry_at is None or found.retry_at <= now)
