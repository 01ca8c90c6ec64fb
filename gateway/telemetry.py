"""The gateway's own numbers, for Prometheus.

They are counted in plain variables and become Prometheus' when they are asked for: its own counters, which
are made for threads, cost each request more than what is counted here is worth. They are asked for from
another thread, so that what requests change is copied first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from controlplane.observability.metrics import (
    BoundedNames,
    Durations,
    PoolUse,
    counters,
    gauges,
    histograms,
    new_registry,
    render,
)

if TYPE_CHECKING:
    from gateway.gateway import Gateway

Pair = tuple[str, str]


class Answered:
    """What one account has been answered by one deployment."""

    __slots__ = ("cached", "completion", "prompt", "statuses")

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.prompt = self.cached = self.completion = 0

    @property
    def tokens(self) -> tuple[tuple[str, int], ...]:
        return ("prompt", self.prompt), ("cached", self.cached), ("completion", self.completion)


class Telemetry(Collector):
    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """By endpoint and status."""
        self.in_flight: Counter[str] = Counter()
        """By deployment."""
        self.first_byte: dict[Pair, Durations] = {}
        """By endpoint and deployment."""
        self.answered: dict[Pair, Answered] = {}
        """By account and deployment."""
        self.waits: dict[str, Durations] = {}
        """For a first replica, by deployment."""
        self.cold_starts: Counter[str] = Counter()
        """By deployment."""
        self.failures: Counter[Pair] = Counter()
        """By deployment and reason."""
        self.usage_dropped = 0
        self._accounts, self._deployments = BoundedNames(), BoundedNames()
        self._registry = new_registry("gateway")
        self._registry.register(self)

    def watch(self, gateway: Gateway) -> None:
        """Tell what the gateway holds and knows as well."""
        pool = PoolUse("gateway", gateway.database.engine, 2 * gateway.settings.database_pool_size)
        self._registry.register(pool)
        self._registry.register(Held(gateway))

    def see_first_byte(self, endpoint: str, deployment: str, seconds: float) -> None:
        durations = self.first_byte.get((endpoint, deployment))
        if durations is None:
            key = endpoint, self._deployments.of(deployment)
            durations = self.first_byte.setdefault(key, Durations())
        durations.add(seconds)

    def see_answer(
        self, account: str, deployment: str, status: int, prompt: int, cached: int, completion: int
    ) -> None:
        answered = self.answered.get((account, deployment))
        if answered is None:
            key = self._accounts.of(account), self._deployments.of(deployment)
            answered = self.answered.setdefault(key, Answered())
        answered.statuses[status] += 1
        answered.prompt += prompt
        answered.cached += cached
        answered.completion += completion

    def see_wait(self, deployment: str, seconds: float) -> None:
        self.waits.setdefault(self._deployments.of(deployment), Durations()).add(seconds)

    def see_cold_start(self, deployment: str) -> None:
        self.cold_starts[self._deployments.of(deployment)] += 1

    def see_failure(self, deployment: str, reason: str) -> None:
        self.failures[self._deployments.of(deployment), reason] += 1

    def drop_usage(self, rows: int) -> None:
        self.usage_dropped += rows

    def render(self) -> bytes:
        return render(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield counters(
            "hearth_gateway_requests",
            "Requests by endpoint and status",
            ["endpoint", "status"],
            (([endpoint, str(status)], number) for (endpoint, status), number in list(self.requests.items())),
        )
        yield histograms(
            "hearth_gateway_first_byte_seconds",
            "From the request's body to the first byte of its answer",
            ["endpoint", "deployment"],
            list(self.first_byte.items()),
        )
        yield from self._of_deployments()
        yield from self._of_accounts()
        yield counters(
            "hearth_gateway_usage_rows_dropped",
            "Usage rows that could not be kept until PostgreSQL took them",
            [],
            [([], self.usage_dropped)],
        )

    def _of_deployments(self) -> Iterator[Metric]:
        in_flight: Counter[str] = Counter()
        for name, number in list(self.in_flight.items()):
            in_flight[self._deployments.of(name)] += number
        yield gauges(
            "hearth_gateway_requests_in_flight",
            "Requests to models that are being answered, or wait",
            ["deployment"],
            (([name], number) for name, number in in_flight.items()),
        )
        yield histograms(
            "hearth_gateway_replica_wait_seconds",
            "How long requests have waited for a deployment's first replica",
            ["deployment"],
            (([name], durations) for name, durations in list(self.waits.items())),
        )
        yield counters(
            "hearth_gateway_cold_starts",
            "Times that a request has woken a deployment at zero",
            ["deployment"],
            (([name], number) for name, number in list(self.cold_starts.items())),
        )
        yield counters(
            "hearth_gateway_engine_failures",
            "Times that nothing came of asking a replica; another one is asked then, where there is one",
            ["deployment", "reason"],
            list(self.failures.items()),
        )

    def _of_accounts(self) -> Iterator[Metric]:
        found = list(self.answered.items())
        yield counters(
            "hearth_gateway_inference_requests",
            "Requests to models by the caller's account, the deployment and the status",
            ["account", "deployment", "status"],
            (
                ([*key, str(status)], number)
                for key, answered in found
                for status, number in list(answered.statuses.items())
            ),
        )
        yield counters(
            "hearth_gateway_tokens",
            "Tokens by the caller's account, the deployment and kind; cached ones are prompt tokens too",
            ["account", "deployment", "kind"],
            (([*key, kind], number) for key, answered in found for kind, number in answered.tokens),
        )


class Held(Collector):
    """What a gateway holds at this moment, and how old what it knows is."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        gateway, snapshot = self._gateway, self._gateway.snapshot
        yield one("hearth_gateway_requests_waiting", "Requests for a first replica", gateway.activator.held)
        yield one("hearth_gateway_held_bytes", "Requests' bodies in memory", gateway.admission.bytes)
        yield one("hearth_gateway_usage_rows", "Usage rows on their way to PostgreSQL", len(gateway.meter))
        if snapshot is not None:
            routes, age = len(snapshot.by_deployed_model), time.monotonic() - gateway.snapshot_began
            yield one("hearth_gateway_routes", "Deployed models that requests may mean", routes)
            yield one("hearth_gateway_routes_age_seconds", "Since the routes were last read", age)


def one(name: str, about: str, value: float) -> Metric:
    return gauges(name, about, [], [([], value)])
