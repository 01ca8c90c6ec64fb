"""What is seen of the api: each request counted, timed, traced and logged in one line."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.observability.logs import FACTS
from controlplane.observability.metrics import (
    OTHER,
    Durations,
    PoolUse,
    counters,
    gauges,
    histograms,
    new_registry,
    render,
)
from controlplane.observability.requests import QUIET, Noted, given_ids, new_id, shown_path
from controlplane.observability.traces import TRACE, Trace, Tracing, end_request

log = logging.getLogger("hearth.api.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "none"
CLIENT_GONE = 499


class ApiNumbers(Collector):
    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """By method, route and status."""
        self.durations: dict[tuple[str, str], Durations] = {}
        """By method and route."""
        self.in_flight = 0
        self.pool: PoolUse | None = None
        self._registry = new_registry("api")
        self._registry.register(self)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        self.requests[method, route, status] += 1
        durations = self.durations.get((method, route))
        if durations is None:
            durations = self.durations[method, route] = Durations()
        durations.add(seconds)

    def render(self) -> bytes:
        return render(self._registry)

    def collect(self) -> Iterator[Metric]:
        """From a thread of its own, so that what it reads is copied first."""
        requests, durations = list(self.requests.items()), list(self.durations.items())
        yield counters(
            "hearth_api_requests",
            "Requests by method, route and status",
            ["method", "route", "status"],
            (([method, route, str(status)], number) for (method, route, status), number in requests),
        )
        yield histograms(
            "hearth_api_request_duration_seconds",
            "From a request's head to the end of its answer",
            ["method", "route"],
            durations,
        )
        yield gauges(
            "hearth_api_requests_in_flight", "Requests that are being answered", [], [([], self.in_flight)]
        )
        if self.pool is not None:
            yield from self.pool.collect()


class Observed:
    """ASGI middleware around everything else, so that an unforeseen error's answer is seen too."""

    def __init__(self, app: ASGIApp, numbers: ApiNumbers, tracing: Tracing) -> None:
        self._app = app
        self._numbers = numbers
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given, traceparent = given_ids(scope["headers"])
        request_id = given or new_id()
        noted = Noted(send, request_id, CLIENT_GONE)
        trace = self._tracing.begin(scope["method"], "SERVER", traceparent)
        facts = {"request_id": request_id}
        if trace.trace_id:
            facts["trace_id"] = trace.trace_id
        # Each request is a task with a context of its own.
        FACTS.set(facts)
        TRACE.set(trace)
        started = time.monotonic()
        self._numbers.in_flight += 1
        try:
            await self._app(scope, receive, noted)
        except Exception:
            noted.status = 500
            raise
        finally:
            self._numbers.in_flight -= 1
            self._tell(scope, noted.status, time.monotonic() - started, facts, trace)

    def _tell(self, scope: Scope, status: int, seconds: float, facts: dict[str, str], trace: Trace) -> None:
        method, route = labels_of(scope)
        self._numbers.count(method, route, status, seconds)
        if account := account_of(scope):
            facts["account"] = account
        if trace.trace_id:
            known = {"hearth.account": account} if account else {}
            end_request(trace, method, route, status, facts["request_id"], known)
        if scope["path"] not in QUIET and log.isEnabledFor(logging.INFO):
            write_line(scope, status, seconds, facts)


def labels_of(scope: Scope) -> tuple[str, str]:
    """The method and the route's template: callers cannot make up labels without end."""
    route = scope.get("route")
    method = scope["method"] if scope["method"] in METHODS else OTHER
    return method, route.path if route is not None else NO_ROUTE


def account_of(scope: Scope) -> str:
    """The caller's, once it is known."""
    caller = scope.get("state", {}).get("caller")
    return str(caller.account_id) if caller is not None else ""


def write_line(scope: Scope, status: int, seconds: float, facts: dict[str, str]) -> None:
    """The path without its query, which may hold what nobody else is to read."""
    path = shown_path(scope["path"])
    if path.startswith("/v1/accounts/"):
        facts["resource"] = path.removeprefix("/v1/").partition(":")[0]
    log.info("%s %s %d %.0fms", scope["method"][:10], path, status, seconds * 1000)
