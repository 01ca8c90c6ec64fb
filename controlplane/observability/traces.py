"""Traces for OpenTelemetry, recorded when OTEL_EXPORTER_OTLP_ENDPOINT says where to.

The SDK is loaded then and never otherwise, and its other OTEL_* variables hold. Without it a trace is an
object whose methods do nothing, but for the caller's `traceparent`, which is passed on all the same.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

Kind = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
Attributes = Mapping[str, str | int | float | bool]
Result = TypeVar("Result")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
LAST_SPANS_SECONDS = 2.0
"""How long the spans of the last moments may take to be sent when the part ends."""


class Trace:
    """A request's trace, or a step of it; each is a block. This one is recorded nowhere."""

    trace_id = ""

    def __init__(self, traceparent: str = "") -> None:
        self.traceparent = traceparent
        """What whoever is asked next is told, by the W3C's rules; may be empty."""

    def step(self, name: str, kind: Kind = "INTERNAL", attributes: Attributes | None = None) -> Trace:
        return self

    def within(self, name: str, work: Awaitable[Result]) -> Awaitable[Result]:
        """`work`, as a step."""
        return work

    def note(self, attributes: Attributes) -> None:
        """Add what has become known."""

    def rename(self, name: str) -> None:
        """Once the name is known that says most."""

    def fail(self, why: str) -> None:
        """Say that it went wrong, when no exception does."""

    def end(self) -> None:
        """Once, unless it is used as a block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pass


NO_TRACE = Trace()
TRACE: ContextVar[Trace] = ContextVar("trace", default=NO_TRACE)
"""The trace of the work that is going on, for what is asked of others on the way."""


class Recorded(Trace):
    def __init__(
        self, tracer: Tracer, context: Any, name: str, kind: Kind, attributes: Attributes | None
    ) -> None:
        from opentelemetry.trace import SpanKind

        self._tracer = tracer
        self._span = tracer.start_span(
            name, context, SpanKind[kind], dict(attributes or {}), record_exception=False
        )
        place = self._span.get_span_context()
        self.trace_id = f"{place.trace_id:032x}"
        super().__init__(f"00-{self.trace_id}-{place.span_id:016x}-{place.trace_flags:02x}")

    def step(self, name: str, kind: Kind = "INTERNAL", attributes: Attributes | None = None) -> Trace:
        from opentelemetry.trace import set_span_in_context

        return Recorded(self._tracer, set_span_in_context(self._span), name, kind, attributes)

    async def within(self, name: str, work: Awaitable[Result]) -> Result:
        with self.step(name):
            return await work

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, why: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR)
        self._span.set_attribute("error.type", why)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.fail(kind.__qualname__)  # its text may tell what a caller has sent
        self.end()

    def end(self) -> None:
        self._span.end()


class Tracing:
    """The traces of one part. Without a provider none is recorded."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("hearth", version("hearth")) if provider else None

    @property
    def is_on(self) -> bool:
        return self._tracer is not None

    def begin(self, name: str, kind: Kind, traceparent: str, attributes: Attributes | None = None) -> Trace:
        """A trace, as a part of the caller's where `traceparent` is one."""
        if self._tracer is None and not traceparent:
            return NO_TRACE
        told = traceparent if TRACEPARENT.fullmatch(traceparent) else ""
        if self._tracer is None:
            return Trace(told) if told else NO_TRACE
        return Recorded(self._tracer, _context_of(told), name, kind, attributes)

    def close(self) -> None:
        """Send what is left, for as long as that is worth waiting for."""
        if self._provider is not None:
            last = threading.Thread(target=self._provider.shutdown, daemon=True)
            last.start()
            last.join(LAST_SPANS_SECONDS)


def end_request(
    trace: Trace, method: str, route: str, status: int, request_id: str, known: Attributes
) -> None:
    """End a request's trace with what HTTP has to say of it."""
    about: dict[str, str | int | float | bool] = {
        "http.request.method": method[:10],
        "http.route": route,
        "http.response.status_code": status,
        "hearth.request.id": request_id,
        **known,
    }
    trace.note(about)
    trace.rename(f"{method[:10]} {route}")
    if status >= 500:
        trace.fail(str(status))
    trace.end()


def start_tracing(part: str) -> Tracing:
    """Tracing as the environment says; ends the program with one line when it cannot be done so."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return Tracing()
    for name in PROTOCOLS:
        if os.environ.get(name, PROTOCOL) != PROTOCOL:
            sys.exit(f"hearth: {name}: only {PROTOCOL} is spoken")
    return Tracing(_provider(part))


def _provider(part: str) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", f"hearth-{part}")
    resource = Resource.create({"service.version": version("hearth")})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _context_of(traceparent: str) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
