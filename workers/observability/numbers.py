"""A worker's own numbers, for Prometheus. Its tasks run in threads, and are few enough to count them so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from controlplane.observability.metrics import OTHER, SECONDS, gauges, new_registry

REGISTRY = new_registry("worker")

TASKS = Counter(
    "hearth_worker_tasks", "Tasks by name and how they ended", ["task", "outcome"], registry=REGISTRY
)
TASK_SECONDS = Histogram(
    "hearth_worker_task_duration_seconds",
    "How long tasks took",
    ["task"],
    buckets=SECONDS,
    registry=REGISTRY,
)
WAIT_SECONDS = Histogram(
    "hearth_worker_task_wait_seconds",
    "From a task's sending to its beginning, by the clocks of two machines",
    ["queue"],
    buckets=SECONDS,
    registry=REGISTRY,
)
RUNNING = Gauge("hearth_worker_tasks_running", "Tasks that run now", ["task"], registry=REGISTRY)
ROUNDS = Counter(
    "hearth_worker_rounds",
    "Visits to rows by kind and how they ended",
    ["kind", "outcome"],
    registry=REGISTRY,
)
LEASES = Gauge("hearth_worker_leases", "Rows that this worker has claimed", ["kind"], registry=REGISTRY)
SCALINGS = Counter(
    "hearth_worker_scalings",
    "Changes of a deployment's number of replicas that the autoscaler made",
    ["direction", "reason"],
    registry=REGISTRY,
)

FRESH_SECONDS = 30.0
"""How long a look of the autoscaler is told of; the next one may be another worker's."""
MOST_DEPLOYMENTS = 500


@dataclass(frozen=True)
class Seen:
    """One deployment, as the autoscaler saw it."""

    name: str
    desired: int
    demand: int | None
    """The replicas that its load is for; None when the load is not known."""


class Looks(Collector):
    """The autoscaler's last look, while it is fresh."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._seen: list[Seen] = []
        self._time = -FRESH_SECONDS

    def tell(self, seen: list[Seen]) -> None:
        with self._lock:
            self._seen, self._time = seen, self._clock()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            fresh = self._clock() - self._time < FRESH_SECONDS
            seen = self._seen if fresh else []
        desired, demand = (
            "hearth_worker_autoscaler_desired_replicas",
            "hearth_worker_autoscaler_demand_replicas",
        )
        wanted = [(one.name, one.desired) for one in seen]
        asked = [(one.name, one.demand) for one in seen if one.demand is not None]
        yield gauges(desired, "Replicas that were decided on", ["deployment"], bounded(wanted))
        yield gauges(
            demand, "Replicas that the load is for, where it is known", ["deployment"], bounded(asked)
        )


def bounded(numbers: list[tuple[str, int]]) -> list[tuple[list[str], float]]:
    """One sample for each name; those beyond the bound are added up as `other`."""
    found: list[tuple[list[str], float]] = [([name], number) for name, number in numbers[:MOST_DEPLOYMENTS]]
    if rest := numbers[MOST_DEPLOYMENTS:]:
        found.append(([OTHER], sum(number for _, number in rest)))
    return found


LOOKS = Looks()
REGISTRY.register(LOOKS)


def count_scaling(before: int, after: int, reason: str) -> None:
    SCALINGS.labels("up" if after > before else "down", reason).inc()
