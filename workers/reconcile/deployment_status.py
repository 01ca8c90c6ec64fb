"""What a deployment and its deployed models say of themselves, read off their rows. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from controlplane.resources.deployed_models import states as deployed
from controlplane.resources.deployments.states import (
    CREATING,
    DELETED,
    DELETING,
    FAILED,
    READY,
    UPDATING,
    Replica,
)
from workers.reconcile.deployment_plan import FAILURE_LIMIT
from workers.reconcile.deployment_view import DeployedModelView, DeploymentView, ReplicaView, Status

NO_CAPACITY = "NO_CAPACITY"
START_FAILED = "START_FAILED"
MOVING_POLL = timedelta(seconds=1)
STEADY_POLL = timedelta(seconds=2)


def describe_deployment(view: DeploymentView, now: datetime) -> Status:
    """Where the deployment stands, and why it is not where it should be."""
    left = [replica for replica in view.replicas if replica.state != Replica.FAILED]
    if view.state == FAILED:
        return view.status
    if view.state == DELETING:
        return Status(DELETING, f"{_count(len(left))} being stopped") if left else Status(DELETED)
    counted = [replica for replica in left if replica.state in Replica.SERVING_OR_COMING]
    current = [r for r in counted if r.state == Replica.READY and r.generation == view.generation]
    if len(current) == len(counted) == view.desired:
        return Status(READY)
    reason, cause = _cause(view, counted, now)
    ready = sum(1 for replica in counted if replica.state == Replica.READY)
    message = f"{ready} of {view.desired} replicas are ready; {cause}" if view.desired > 1 else cause
    return Status(CREATING if view.state == CREATING else UPDATING, message, reason)


def _cause(view: DeploymentView, counted: Sequence[ReplicaView], now: datetime) -> tuple[str, str]:
    """(reason, message): the root cause of what is missing."""
    short = [replica for replica in counted if replica.reason in (NO_CAPACITY, START_FAILED)]
    if short:
        return short[0].reason, short[0].message
    failed = last_failure(view)
    coming = [replica for replica in counted if replica.state != Replica.READY]
    if view.failures and failed:
        return failed.reason, _retrying(view, failed, coming, now)
    if coming:
        return "STARTING", coming[0].message
    if any(replica.generation != view.generation for replica in counted):
        return "REPLACING", "replicas with the earlier settings are being replaced"
    if any(replica.state == Replica.STOPPING for replica in view.replicas):
        return "STOPPING", "waiting for an earlier engine to stop"
    return "STARTING", "a replica is about to be started"


def _retrying(view: DeploymentView, failed: ReplicaView, coming: Sequence[ReplicaView], now: datetime) -> str:
    times = f"failure {view.failures}" + (f" of {FAILURE_LIMIT}" if view.failures <= FAILURE_LIMIT else "")
    if coming:
        next_start = f"trying again: {coming[0].message}"
    else:
        wait = max((view.retry_at - now).total_seconds(), 0) if view.retry_at else 0
        next_start = f"trying again in {wait:.0f} s"
    return f"{failed.message} ({times}); {next_start}"


def last_failure(view: DeploymentView) -> ReplicaView | None:
    """The replica that failed last, of those still known."""
    failed = [
        replica
        for replica in view.replicas
        if replica.reason and replica.state in (Replica.STOPPING, Replica.FAILED)
    ]
    return max(failed, key=lambda replica: replica.state_time, default=None)


def describe_model(model: DeployedModelView, view: DeploymentView, deployment: Status) -> Status:
    """DEPLOYED when every ready replica serves it, and there is one; else what it waits for.

    An addon that an engine refused, or that changes nothing, says so in its code.
    """
    if model.state == deployed.UNDEPLOYING:
        return Status(deployed.UNDEPLOYING, "it is being unloaded")
    ready = [replica for replica in view.replicas if replica.state == Replica.READY]
    if ready and all(_serves(replica, model) for replica in ready):
        return Status(deployed.DEPLOYED)
    state = deployed.DEPLOYING if model.state == deployed.DEPLOYING else deployed.UPDATING
    for replica in view.replicas:
        found = replica.adapters.get(model.uid)
        if found is not None and found.failed and replica.state in Replica.SERVING_OR_COMING:
            return Status(state, found.message, "ADDON_FAILED", found.code)
    if ready:
        return Status(state, "it is being loaded on the replicas", "LOADING")
    if deployment.state == FAILED:
        return Status(state, f"its deployment failed: {deployment.message}", "NO_REPLICA", "UNAVAILABLE")
    if view.desired == 0:
        return Status(state, "its deployment is scaled to zero", "NO_REPLICA")
    return Status(state, f"no replica is ready: {deployment.message}", "NO_REPLICA")


def _serves(replica: ReplicaView, model: DeployedModelView) -> bool:
    if not model.is_addon:
        return True
    found = replica.adapters.get(model.uid)
    return found is not None and found.proven


def undeployed(view: DeploymentView) -> list[uuid.UUID]:
    """The deployed models that no engine holds any more, and that may vanish."""
    counted = [replica for replica in view.replicas if replica.state in Replica.SERVING_OR_COMING]
    return [
        model.uid
        for model in view.models
        if model.state == deployed.UNDEPLOYING
        and not any(model.uid in replica.adapters for replica in counted)
    ]


def next_look(view: DeploymentView, status: Status, now: datetime) -> timedelta | None:
    """When to look at it again: soon while anything moves, now and then while engines run, else never."""
    left = [replica for replica in view.replicas if replica.state != Replica.FAILED]
    if status.state == FAILED:
        return MOVING_POLL if left else None
    if status.state == READY and all(replica.state == Replica.READY for replica in left):
        settled = all(_settled(replica, view) for replica in left)
        return (STEADY_POLL if left else None) if settled else MOVING_POLL
    waiting = not left and view.retry_at is not None and view.retry_at > now
    return view.retry_at - now if waiting and view.retry_at else MOVING_POLL


def _settled(replica: ReplicaView, view: DeploymentView) -> bool:
    """Whether there is nothing to load on it or to unload from it."""
    return all(
        replica.has_settled(model.uid)
        for model in view.models
        if model.is_addon and model.state != deployed.UNDEPLOYING
    ) and not any(model.state == deployed.UNDEPLOYING for model in view.models)


def _count(replicas: int) -> str:
    return "1 replica is" if replicas == 1 else f"{replicas} replicas are"
