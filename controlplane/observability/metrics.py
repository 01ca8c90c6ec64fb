"""What the parts' numbers for Prometheus are made of.

Names are `hearth_<part>_<what>_<unit>`; `docs/observability.md` lists them. Labels are bounded: route
templates instead of paths, and no more accounts and deployments than `MOST_NAMES`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
BUCKETS = [*map(str, map(float, SECONDS)), "+Inf"]
OTHER = "other"
MOST_NAMES = 1000
"""Values that a label of accounts or deployments has at most; what comes later is `other`."""

# When each series began is a series more, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

Samples = Iterable[tuple[Sequence[str], float]]
"""Each sample's values of the labels, and the number."""


class Durations:
    """How many of some durations fell into each bucket, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * len(BUCKETS)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds


class BoundedNames:
    """The names that came first, up to a number; every other one is called `other`."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= self._most:
                return OTHER
            known = self._known[name] = name
        return known


def new_registry(part: str) -> CollectorRegistry:
    """A registry that knows what is the same in every part: its version, CPU time, memory and files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    about = Gauge(
        "hearth_build_info", "The part and its version; always 1", ["part", "version"], registry=registry
    )
    about.labels(part, version("hearth")).set(1)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    return generate_latest(registry)


def counters(name: str, about: str, labels: Sequence[str], samples: Samples) -> Metric:
    """A counter; `name` without its `_total`."""
    family = CounterMetricFamily(name, about, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def gauges(name: str, about: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, about, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def histograms(
    name: str, about: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], Durations]]
) -> Metric:
    family = HistogramMetricFamily(name, about, labels=labels)
    for values, durations in samples:
        buckets = list(zip(BUCKETS, accumulate(durations.counts), strict=True))
        family.add_metric(values, buckets, durations.sum)
    return family


class PoolUse(Collector):
    """The connections of a part's pool to PostgreSQL."""

    def __init__(self, part: str, engine: Any, most: int) -> None:
        """`engine` is SQLAlchemy's, of either kind; `most` is how many connections it opens."""
        self._part = part
        self._pool = engine.pool
        self._most = most

    def collect(self) -> Iterator[Metric]:
        states = [(["used"], self._pool.checkedout()), (["idle"], self._pool.checkedin())]
        name = f"hearth_{self._part}_database_connections"
        yield gauges(name, "Connections to PostgreSQL, by what they are", ["state"], states)
        yield gauges(f"{name}_limit", "Connections to PostgreSQL at most", [], [([], self._most)])
