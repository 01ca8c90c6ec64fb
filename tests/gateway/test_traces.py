"""Traces arrive at a real OTLP receiver, and each request's way can be told from them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from controlplane.observability.traces import NO_TRACE, Tracing, start_tracing
from tests.gateway.serving import wait_until

CALLERS = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{CALLERS}-b7ad6b7169203331-01"


class Receiver:
    """What a collector takes: OTLP as protobuf over HTTP."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        """Each with its service."""
        received = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                for one in ExportTraceServiceRequest.FromString(body).resource_spans:
                    about = {pair.key: pair.value.string_value for pair in one.resource.attributes}
                    for scope in one.scope_spans:
                        received.extend((about["service.name"], span) for span in scope.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def named(self, name: str) -> Any:
        return next((span for _, span in self.spans if span.name == name), None)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    found = Receiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "hearth-gateway")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    yield found
    found.server.shutdown()


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}


def test_a_requests_steps_are_spans_of_the_callers_trace_and_the_engine_goes_on_with_it(receiver, served):
    headers = {"traceparent": TRACEPARENT, "x-request-id": "order-7"}
    body = {"model": served.base, "prompt": "a secret question", "stream": True}
    answer = served.http.post("/v1/completions", json=body, headers=headers)
    assert answer.headers["x-request-id"] == "order-7"
    root = wait_until(lambda: receiver.named("POST /v1/completions"))
    asking = receiver.named(f"text_completion {served.base}")
    parents = {span.name: span.parent_span_id for _, span in receiver.spans}
    assert {span.trace_id.hex() for _, span in receiver.spans} == {CALLERS}
    assert {service for service, _ in receiver.spans} == {"hearth-gateway"}
    assert root.parent_span_id.hex() == "b7ad6b7169203331"
    assert parents["authenticate"] == parents["resolve"] == asking.parent_span_id == root.span_id
    assert parents["first byte"] == parents["stream"] == asking.span_id
    known = attributes(root)
    assert (known["http.response.status_code"], known["http.route"]) == (200, "/v1/completions")
    assert (known["hearth.account"], known["hearth.request.id"]) == ("acme", "order-7")
    assert (known["gen_ai.request.model"], known["gen_ai.usage.output_tokens"]) == (served.base, 3)
    seen = served.engine.headers[0]
    assert seen["traceparent"] == f"00-{CALLERS}-{asking.span_id.hex()}-01"
    assert seen["x-request-id"].startswith("order-7-")
    assert "secret" not in repr(receiver.spans)


def test_what_fails_is_a_span_that_says_so(receiver, served):
    served.engine.fault = "500"
    assert served.http.post("/v1/completions", json={"model": served.base, "prompt": "x"}).status_code == 502
    root = wait_until(lambda: receiver.named("POST /v1/completions"))
    assert root.status.code == 2
    assert attributes(root)["error.type"] == "502"
    assert attributes(receiver.named("first byte"))["error.type"] == "EngineFailed"


def test_without_a_receiver_nothing_is_recorded_and_the_callers_trace_is_passed_on(served):
    assert served.running.gateway.tracing.is_on is False
    served.http.post(
        "/v1/completions", json={"model": served.base, "prompt": "x"}, headers={"traceparent": TRACEPARENT}
    )
    assert served.engine.headers[0]["traceparent"] == TRACEPARENT


@pytest.mark.parametrize("told", ["", "00-x", f"00-{'0' * 32}-{'1' * 16}-01", f"{TRACEPARENT}\r\nX-Evil: 1"])
def test_what_is_no_traceparent_is_passed_on_to_nobody(told: str) -> None:
    assert Tracing().begin("GET", "SERVER", told) is NO_TRACE


def test_a_protocol_that_is_not_spoken_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(SystemExit, match="OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is spoken"):
        start_tracing("api")
