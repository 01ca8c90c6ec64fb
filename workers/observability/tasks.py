"""Each task counted, timed, and told apart in the log; traced where a request has caused it."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from celery.signals import task_postrun, task_prerun, task_revoked

from controlplane.observability.logs import FACTS
from controlplane.observability.traces import NO_TRACE, TRACE, Trace, Tracing
from controlplane.queue import CONTROL_QUEUE, QUEUE_OF, REQUEST_ID, SENT_AT, TRACEPARENT
from workers.observability.numbers import RUNNING, TASK_SECONDS, TASKS, WAIT_SECONDS


@dataclass(frozen=True)
class Begun:
    started: float
    trace: Trace
    facts: Token[Any]


BEGUN: ContextVar[Begun | None] = ContextVar("begun", default=None)


class TaskWatch:
    """Hears of each task's beginning and end, in the thread that runs it."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def connect(self) -> None:
        task_prerun.connect(self.begin, weak=False)
        task_postrun.connect(self.end, weak=False)
        task_revoked.connect(self.drop, weak=False)

    def begin(self, task_id: str = "", task: Any = None, **_: object) -> None:
        name, told = task.name, task.request
        sent_at = told.get(SENT_AT)
        if isinstance(sent_at, int | float):
            queue = QUEUE_OF.get(name, CONTROL_QUEUE)
            WAIT_SECONDS.labels(queue).observe(max(time.time() - sent_at, 0.0))
        RUNNING.labels(name).inc()
        trace = self._trace(name, told.get(TRACEPARENT) or "")
        known = {"task": name, "task_id": task_id}
        if request_id := told.get(REQUEST_ID):
            known["request_id"] = str(request_id)
        if trace.trace_id:
            known["trace_id"] = trace.trace_id
        TRACE.set(trace)
        BEGUN.set(Begun(time.monotonic(), trace, FACTS.set(known)))

    def _trace(self, name: str, traceparent: str) -> Trace:
        """Only what a request has caused: the sweeps of every second would bury it."""
        if not traceparent:
            return NO_TRACE
        about = {"messaging.system": "redis", "messaging.operation.name": "process"}
        return self._tracing.begin(name, "CONSUMER", traceparent, about)

    def end(self, task: Any = None, state: str | None = None, **_: object) -> None:
        begun = BEGUN.get()
        if begun is None:
            return
        BEGUN.set(None)
        name, outcome = task.name, (state or "unknown").lower()
        RUNNING.labels(name).dec()
        TASKS.labels(name, outcome).inc()
        TASK_SECONDS.labels(name).observe(time.monotonic() - begun.started)
        if outcome == "failure":
            begun.trace.fail("task failed")
        begun.trace.end()
        TRACE.set(NO_TRACE)
        FACTS.reset(begun.facts)

    def drop(self, request: Any = None, **_: object) -> None:
        """A task that nobody took in time."""
        TASKS.labels(request.task if request is not None else "unknown", "expired").inc()
