"""A task that a request has caused is a part of its trace, and each task is counted and told apart."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from controlplane.observability.logs import FACTS
from controlplane.observability.traces import TRACE, Tracing
from controlplane.queue import REQUEST_ID, SENT_AT, TRACEPARENT, say_where_from
from workers.observability.numbers import RUNNING, TASKS
from workers.observability.tasks import TaskWatch


def recorded() -> tuple[Tracing, InMemorySpanExporter]:
    spans, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider), spans


def task(headers: dict[str, Any]) -> Any:
    return SimpleNamespace(name="hearth.reconcile_model", request=headers)


def test_a_task_goes_on_with_the_trace_and_the_id_of_its_request():
    tracing, spans = recorded()
    headers: dict[str, Any] = {}
    facts = FACTS.set({"request_id": "r-1"})
    with tracing.begin("POST", "SERVER", "") as request:
        trace = TRACE.set(request)
        say_where_from(headers=headers)
        TRACE.reset(trace)
    FACTS.reset(facts)
    assert headers.keys() == {SENT_AT, REQUEST_ID, TRACEPARENT}
    watch, done = TaskWatch(tracing), TASKS.labels("hearth.reconcile_model", "failure")
    before = done._value.get()
    watch.begin(task_id="t-1", task=task(headers))
    assert FACTS.get() == {
        "task": "hearth.reconcile_model",
        "task_id": "t-1",
        "request_id": "r-1",
        "trace_id": request.trace_id,
    }
    assert RUNNING.labels("hearth.reconcile_model")._value.get() == 1
    watch.end(task=task(headers), state="FAILURE")
    assert done._value.get() == before + 1
    assert RUNNING.labels("hearth.reconcile_model")._value.get() == 0
    assert "task_id" not in FACTS.get()
    first, second = spans.get_finished_spans()
    assert (second.name, second.parent.span_id) == ("hearth.reconcile_model", first.context.span_id)
    assert second.attributes["error.type"] == "task failed"


def test_a_task_that_no_request_has_caused_is_no_trace_of_its_own():
    tracing, spans = recorded()
    watch = TaskWatch(tracing)
    watch.begin(task_id="t-2", task=task({SENT_AT: time.time()}))
    watch.end(task=task({}), state="SUCCESS")
    assert spans.get_finished_spans() == ()
