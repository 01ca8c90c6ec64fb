"""What the rows and the queues say, read when it is asked for: the same from every worker.

So sums over workers mean nothing here; dashboards take the largest. What cannot be read is left out, and
`hearth_platform_reachable` says so: no number is not the number zero.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, or_, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from controlplane.db import Database
from controlplane.observability.metrics import gauges
from controlplane.queue import CONTROL_QUEUE, SENT_AT, TRAINING_QUEUE
from controlplane.resources.deployments.states import DELETED, Replica
from controlplane.resources.tables import (
    DatasetRow,
    DeploymentRow,
    FineTuningJobRow,
    InspectionRow,
    ModelRow,
    ReplicaRow,
)
from workers.observability.numbers import bounded

STATEMENT_MS = 3000
HOLDING = (*Replica.SERVING_OR_COMING, Replica.STOPPING)
COUNTED: tuple[tuple[str, str, Any], ...] = (
    ("hearth_platform_fine_tuning_jobs", "Fine-tuning jobs by state", FineTuningJobRow.state),
    ("hearth_platform_deployments", "Deployments by state", DeploymentRow.state),
    ("hearth_platform_replicas", "Replicas by state", ReplicaRow.state),
)
LEASED: tuple[Any, ...] = (ModelRow, DatasetRow, FineTuningJobRow, InspectionRow, DeploymentRow)


class Rows(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        try:
            with self._database.session() as session:
                session.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_MS}"))
                found = [*states(session), *reconciled(session), *replicas(session), accelerators(session)]
        except (DBAPIError, PoolTimeout, OSError):
            found = []
        yield from found
        yield reachable("database", bool(found))


def reachable(store: str, answers: bool) -> Metric:
    return gauges(
        f"hearth_platform_{store}_reachable", f"Whether the {store} answers", [], [([], float(answers))]
    )


def states(session: Session) -> Iterator[Metric]:
    for name, about, state in COUNTED:
        rows = session.execute(select(state, func.count()).group_by(state))
        yield gauges(name, about, ["state"], [([value], number) for value, number in rows])


def reconciled(session: Session) -> Iterator[Metric]:
    """How much is waiting to be made true, and how much is being worked at."""
    due, held = [], []
    for table in LEASED:
        is_held = table.lease_token.is_not(None) & (table.lease_expires_at > func.now())
        is_due = (table.next_reconcile_at <= func.now()) & ~func.coalesce(is_held, False)
        query = select(func.count().filter(is_due), func.count().filter(is_held)).where(
            or_(table.next_reconcile_at.is_not(None), table.lease_token.is_not(None))
        )
        one = session.execute(query).one()
        due.append(([table.__tablename__], one[0]))
        held.append(([table.__tablename__], one[1]))
    yield gauges("hearth_platform_rows_due", "Rows that no worker has looked at in time", ["kind"], due)
    yield gauges("hearth_platform_leases", "Rows that some worker has claimed", ["kind"], held)


def replicas(session: Session) -> Iterator[Metric]:
    ready = func.count(ReplicaRow.uid).filter(ReplicaRow.state == Replica.READY)
    query = (
        select(DeploymentRow, ready)
        .outerjoin(ReplicaRow, ReplicaRow.deployment_uid == DeploymentRow.uid)
        .where(DeploymentRow.state != DELETED)
        .group_by(DeploymentRow.uid)
        .order_by(DeploymentRow.account_id, DeploymentRow.id)
    )
    rows = session.execute(query).all()
    wanted = bounded([(row.name, row.desired_replica_count) for row, _ in rows])
    serving = bounded([(row.name, number) for row, number in rows])
    name = "hearth_platform_deployment_replicas"
    yield gauges(f"{name}_desired", "Replicas that a deployment is to have", ["deployment"], wanted)
    yield gauges(f"{name}_ready", "Replicas that serve", ["deployment"], serving)


def accelerators(session: Session) -> Metric:
    query = (
        select(ReplicaRow.accelerator_type, func.sum(ReplicaRow.accelerator_count))
        .where(ReplicaRow.state.in_(HOLDING), ReplicaRow.accelerator_count > 0)
        .group_by(ReplicaRow.accelerator_type)
    )
    return gauges(
        "hearth_platform_accelerators_used",
        "GPUs that replicas hold, by type",
        ["type"],
        [([kind], number) for kind, number in session.execute(query)],
    )


class Queues(Collector):
    """The broker's queues. Messages are put in at one end of a list and taken from the other."""

    def __init__(self, valkey: Redis) -> None:
        self._valkey = valkey

    def collect(self) -> Iterator[Metric]:
        try:
            found = list(self._look())
        except (RedisError, OSError):
            found = []
        yield from found
        yield reachable("broker", bool(found))

    def _look(self) -> Iterable[Metric]:
        lengths, ages = [], []
        for queue in (CONTROL_QUEUE, TRAINING_QUEUE):
            lengths.append(([queue], float(self._valkey.llen(queue))))
            ages.append(([queue], age_of(self._valkey.lindex(queue, -1))))
        yield gauges(
            "hearth_platform_queue_messages", "Messages that no worker has taken", ["queue"], lengths
        )
        yield gauges(
            "hearth_platform_queue_oldest_seconds",
            "The age of the oldest of them; 0 for none",
            ["queue"],
            ages,
        )


def age_of(message: Any) -> float:
    """Seconds since a message was sent; 0 for none, and for one that does not say."""
    try:
        sent_at = json.loads(message)["headers"][SENT_AT]
        return max(time.time() - float(sent_at), 0.0)
    except (TypeError, ValueError, KeyError):
        return 0.0
