"""The gateway's own numbers, for Prometheus.

They are counted in plain variables and become Prometheus' when they are asked for: its own counters, which
are made for threads, cost each request more than what is counted here is worth.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
BUCKETS = [*map(str, map(float, SECONDS)), "+Inf"]


class Durations:
    """How many of some durations fell into each bucket, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * len(BUCKETS)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds


class Telemetry(Collector):
    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """By endpoint and status."""
        self.in_flight: Counter[str] = Counter()
        """By deployment."""
        self.first_byte: dict[str, Durations] = {}
        """By endpoint."""
        self.usage_dropped = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def see_first_byte(self, endpoint: str, seconds: float) -> None:
        durations = self.first_byte.get(endpoint)
        if durations is None:
            durations = self.first_byte[endpoint] = Durations()
        durations.add(seconds)

    def drop_usage(self, rows: int) -> None:
        self.usage_dropped += rows

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "hearth_gateway_requests", "Requests by endpoint and status", labels=["endpoint", "status"]
        )
        for (endpoint, status), count in self.requests.items():
            requests.add_metric([endpoint, str(status)], count)
        yield requests
        in_flight = GaugeMetricFamily(
            "hearth_gateway_in_flight", "Requests that a deployment is working on", labels=["deployment"]
        )
        for deployment, count in self.in_flight.items():
            in_flight.add_metric([deployment], count)
        yield in_flight
        first_byte = HistogramMetricFamily(
            "hearth_gateway_first_byte_seconds",
            "From the request's body to the first byte of its answer",
            labels=["endpoint"],
        )
        for endpoint, durations in self.first_byte.items():
            buckets = list(zip(BUCKETS, accumulate(durations.counts), strict=True))
            first_byte.add_metric([endpoint], buckets, durations.sum)
        yield first_byte
        yield CounterMetricFamily(
            "hearth_gateway_usage_dropped",
            "Usage rows that could not be kept until Postgres took them",
            value=self.usage_dropped,
        )
