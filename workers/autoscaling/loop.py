"""One look at all deployments: their load is read, decided upon, and the new numbers are written.

The row is the truth: a number is changed only where it still is what the decision was made from, so that a
user's `:scale`, another worker's look and a waking request all win by coming first.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Row, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.config import Settings
from controlplane.db import now
from controlplane.load_board import Board, GatewayLoad, read_board
from controlplane.node_pools import NodePools
from controlplane.queue import RECONCILE_DEPLOYMENT, enqueue
from controlplane.regions import Regions
from controlplane.resources.deployments.autoscaling import (
    DEFAULT_LOAD_TARGETS,
    DEFAULT_SCALE_DOWN_WINDOW,
    DEFAULT_SCALE_TO_ZERO_WINDOW,
    DEFAULT_SCALE_UP_WINDOW,
    AutoscalingPolicy,
)
from controlplane.resources.deployments.states import CREATING, READY, UPDATING, Replica
from controlplane.resources.quotas.service import accelerators_a_replica
from controlplane.resources.tables import DeploymentRow, ReplicaRow, ScalingRow
from workers.autoscaling.decider import Decision, Load, Policy, Trend, decide, demand
from workers.autoscaling.schedules import scheduled_floor
from workers.autoscaling.unused import delete_unused, is_unused
from workers.context import WorkerContext
from workers.observability.numbers import LOOKS, Seen, count_scaling
from workers.runtimes.vllm import REQUESTS_ON_CPU, REQUESTS_ON_GPU

log = logging.getLogger(__name__)

SCALED_STATES = (CREATING, READY, UPDATING)
ONE_AT_A_TIME = 0x6865_6172_7468_01
"""The advisory lock of a look."""
REMEMBERED_WITHIN = timedelta(seconds=30)
"""How far the stored time of the last request may lag behind: a busy deployment makes few writes."""
VALKEY_SECONDS = 2.0


RowOf = Row[DeploymentRow, ScalingRow | None, datetime | None]


def scale_deployments(context: WorkerContext) -> None:
    settings, moment = context.settings, now()
    board = look_at_board(settings.redis_url)
    with context.db.session() as session:
        if not session.scalar(select(func.pg_try_advisory_xact_lock(ONE_AT_A_TIME))):
            return
        rows = read_rows(session)
        changed = [row[0].uid for row in rows if scale_one(session, row, board, moment, settings)]
        LOOKS.tell([seen_of(row, board, moment, settings.node_pools) for row in rows])
    for uid in changed:
        enqueue(settings, RECONCILE_DEPLOYMENT, uid)


def seen_of(row: RowOf, board: Board | None, moment: datetime, pools: NodePools | None) -> Seen:
    """A deployment after the look."""
    deployment, memory, _ = row
    load = load_of(deployment, board, last_request_time(deployment.uid, memory, board, moment), pools)
    asked = None if load is None else demand(policy_of(deployment, moment), load)
    return Seen(deployment.name, deployment.desired_replica_count, asked)


def look_at_board(redis_url: str) -> Board | None:
    """The load that is known; None when nothing is."""
    try:
        return read_board(valkey_client(redis_url))
    except (RedisError, OSError) as error:
        log.warning("the load board cannot be read: %s; nothing is scaled down meanwhile", error)
        return None


@lru_cache(maxsize=1)
def valkey_client(redis_url: str) -> Redis:
    return Redis.from_url(redis_url, socket_timeout=VALKEY_SECONDS, socket_connect_timeout=VALKEY_SECONDS)


def read_rows(session: Session) -> Sequence[RowOf]:
    """(deployment, what is remembered of it, since when it serves) of all that may be scaled."""
    serving = (
        select(ReplicaRow.deployment_uid, func.min(ReplicaRow.ready_time).label("since"))
        .where(ReplicaRow.state == Replica.READY)
        .group_by(ReplicaRow.deployment_uid)
        .subquery()
    )
    query = (
        select(DeploymentRow, ScalingRow, serving.c.since)
        .outerjoin(ScalingRow, ScalingRow.deployment_uid == DeploymentRow.uid)
        .outerjoin(serving, serving.c.deployment_uid == DeploymentRow.uid)
        .where(DeploymentRow.state.in_(SCALED_STATES))
        .order_by(DeploymentRow.uid)
    )
    return session.execute(query).all()


def scale_one(
    session: Session, row: RowOf, board: Board | None, moment: datetime, settings: Settings
) -> bool:
    """Decide on one deployment and write it down; whether a worker should look at it."""
    deployment, memory, since = row
    kept = timedelta(days=settings.unused_deployment_days)
    last_request = last_request_time(deployment.uid, memory, board, moment)
    if is_unused(deployment, last_request, kept, moment):
        session.refresh(deployment, with_for_update=True)
        if is_unused(deployment, last_request, kept, moment) and deployment.state in SCALED_STATES:
            delete_unused(session, deployment, kept)
            return True
        return False
    desired = deployment.desired_replica_count
    decision = decide(
        policy_of(deployment, moment),
        desired,
        Trend(**memory.trend) if memory else Trend(),
        load_of(deployment, board, last_request, settings.node_pools),
        serving_since=since.timestamp() if since else None,
        now=moment.timestamp(),
    )
    changed = decision.replicas != desired and write_number(session, deployment, desired, decision)
    if changed or is_worth_a_write(memory, decision.trend, last_request):
        remember(session, deployment.uid, decision, last_request, moment if changed else None)
    return changed


def policy_of(row: DeploymentRow, moment: datetime) -> Policy:
    """The stored policy with its defaults, and the floor that a schedule sets now."""
    stored = AutoscalingPolicy.of(row.autoscaling_policy) or AutoscalingPolicy()
    floor = scheduled_floor(stored.scaling_schedules.values(), moment)
    return Policy(
        least=min(max(row.min_replica_count, floor), row.max_replica_count),
        most=row.max_replica_count,
        scale_up_window=_seconds(stored.scale_up_window, DEFAULT_SCALE_UP_WINDOW),
        scale_down_window=_seconds(stored.scale_down_window, DEFAULT_SCALE_DOWN_WINDOW),
        scale_to_zero_window=_seconds(stored.scale_to_zero_window, DEFAULT_SCALE_TO_ZERO_WINDOW),
        load_targets=stored.load_targets or DEFAULT_LOAD_TARGETS,
    )


def _seconds(given: timedelta | None, default: timedelta) -> float:
    return (default if given is None else given).total_seconds()


def load_of(
    row: DeploymentRow, board: Board | None, last_request: datetime | None, pools: NodePools | None
) -> Load | None:
    if board is None:
        return None
    if pools:
        on_gpus = pools.has_gpus(row.accelerator_type, Regions.of(row.placement))
    else:
        on_gpus = accelerators_a_replica(row) > 0
    seen = board.loads.get(row.uid, GatewayLoad())
    return Load(
        concurrent_requests=seen.concurrent,
        waiting_requests=seen.waiting,
        requests_per_second=seen.requests_per_second,
        tokens_generated_per_second=seen.tokens_generated_per_second,
        prompt_tokens_per_second=seen.prompt_tokens_per_second,
        last_request_at=last_request.timestamp() if last_request else None,
        replica_capacity=REQUESTS_ON_GPU if on_gpus else REQUESTS_ON_CPU,
        is_whole=board.whole,
    )


def last_request_time(
    uid: uuid.UUID, memory: ScalingRow | None, board: Board | None, moment: datetime
) -> datetime | None:
    """The latest that is known: gateways forget when they end, the row does not."""
    quiet = board.loads[uid].quiet_seconds if board and uid in board.loads else None
    seen = None if quiet is None else moment - timedelta(seconds=quiet)
    stored = memory.last_request_time if memory else None
    return max((time for time in (seen, stored) if time is not None), default=None)


def write_number(session: Session, row: DeploymentRow, before: int, decision: Decision) -> bool:
    """False when somebody else changed it meanwhile."""
    change = (
        update(DeploymentRow)
        .where(
            DeploymentRow.uid == row.uid,
            DeploymentRow.desired_replica_count == before,
            DeploymentRow.state.in_(SCALED_STATES),
        )
        .values(desired_replica_count=decision.replicas, next_reconcile_at=func.now())
        .returning(DeploymentRow.uid)
    )
    if session.scalar(change) is None:
        return False
    log.info("%s: from %d replicas to %d: %s", row.name, before, decision.replicas, decision.reason)
    count_scaling(before, decision.replicas, decision.reason)
    return True


def is_worth_a_write(memory: ScalingRow | None, trend: Trend, last_request: datetime | None) -> bool:
    if memory is None or Trend(**memory.trend) != trend:
        return True
    if last_request is None:
        return False
    stored = memory.last_request_time
    return stored is None or last_request - stored > REMEMBERED_WITHIN


def remember(
    session: Session,
    uid: uuid.UUID,
    decision: Decision,
    last_request: datetime | None,
    scaled_at: datetime | None,
) -> None:
    values: dict[str, Any] = {"trend": asdict(decision.trend), "last_request_time": last_request}
    if scaled_at is not None:
        values |= {"scale_time": scaled_at, "reason": decision.reason}
    statement = insert(ScalingRow).values(deployment_uid=uid, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["deployment_uid"], set_=values))
