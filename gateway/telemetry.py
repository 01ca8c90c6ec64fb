"""The gateway's own numbers, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Telemetry:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hearth_gateway_requests",
            "Requests by endpoint and status",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "hearth_gateway_in_flight",
            "Requests that a deployment is working on",
            ["deployment"],
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "hearth_gateway_first_byte_seconds",
            "From the request's body to the first byte of its answer",
            ["endpoint"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.usage_dropped = Counter(
            "hearth_gateway_usage_dropped",
            "Usage rows that could not be kept until Postgres took them",
            registry=self.registry,
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)
