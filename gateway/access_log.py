"""One short line for each request: no prompts, no keys, no query strings.

Lines are gathered and written together, several times a second: writing each by itself would cost a request
as much as finding its key and its route.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.observability.logs import FACTS, Format, clock, utc
from controlplane.observability.requests import QUIET, Noted, given_ids, new_id, shown_path
from controlplane.observability.traces import Trace, end_request
from gateway.errors import ClientGone
from gateway.gateway import Gateway

log = logging.getLogger("hearth.gateway.access")

CLIENT_GONE = 499
WRITTEN_AFTER = 0.2
MOST_LINES = 1000
"""So many are written at once, without waiting."""


class Seen(msgspec.Struct, frozen=True):
    """A request that has been answered."""

    moment: float
    method: str
    path: str
    status: int
    seconds: float
    notes: dict[str, str]


class Lines:
    """Lines on their way to a stream; they are made when they are written."""

    def __init__(self, kind: Format = "text", stream: Callable[[], TextIO] = lambda: sys.stderr) -> None:
        self._written = as_json if kind == "json" else as_text
        self._stream = stream
        self._held: list[Seen] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, seen: Seen) -> None:
        self._held.append(seen)
        if len(self._held) >= MOST_LINES:
            self.write()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITTEN_AFTER, self.write)

    def write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        if held:
            # A log that cannot be written must not cost anybody an answer.
            with suppress(OSError):
                stream = self._stream()
                stream.write("".join([self._written(seen) for seen in held]))
                stream.flush()


class AccessLog:
    """ASGI middleware: logs, counts and traces requests. Endpoints add to `scope["notes"]` what they learn.

    They find an id that no other request has as `scope["unique_id"]`, the trace as `scope["trace"]`, and the
    gateway as `scope["gateway"]`.
    """

    def __init__(self, app: ASGIApp, lines: Lines) -> None:
        self._app = app
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gateway: Gateway = scope["app"].gateway
        scope["gateway"] = gateway
        given, traceparent = given_ids(scope["headers"])
        scope["unique_id"] = unique = new_id()
        notes = {"request_id": given or unique}
        scope["notes"] = notes
        scope["trace"] = trace = gateway.tracing.begin(scope["method"], "SERVER", traceparent)
        if trace.trace_id:
            notes["trace_id"] = trace.trace_id
        # Each request is a task with a context of its own.
        FACTS.set(notes)
        noted = Noted(send, notes["request_id"], CLIENT_GONE)
        started = time.monotonic()
        try:
            await self._app(scope, receive, noted)
        except ClientGone:
            notes["client"] = "gone"
        except Exception:
            noted.status = 500
            raise
        finally:
            gateway.telemetry.requests[endpoint_of(scope), noted.status] += 1
            if trace.trace_id:
                end_trace(trace, scope, noted.status, notes)
            if scope["path"] not in QUIET and log.isEnabledFor(logging.INFO):
                seconds = time.monotonic() - started
                seen = Seen(time.time(), scope["method"], scope["path"], noted.status, seconds, notes)
                self._lines.add(seen)


def endpoint_of(scope: Scope) -> str:
    """The route's own pattern, so that callers cannot make up labels without end."""
    route = scope.get("route")
    return route.path if route is not None else "none"


def end_trace(trace: Trace, scope: Scope, status: int, notes: dict[str, str]) -> None:
    known = {"hearth.account": notes["account"]} if "account" in notes else {}
    end_request(trace, scope["method"], endpoint_of(scope), status, notes["request_id"], known)


def as_text(seen: Seen) -> str:
    known = " ".join(map("=".join, seen.notes.items()))
    return f"{clock(seen.moment)} INFO {log.name} {message(seen)} {known}\n"


def as_json(seen: Seen) -> str:
    content = {
        "time": utc(seen.moment),
        "level": "INFO",
        "logger": log.name,
        "message": message(seen),
        **seen.notes,
    }
    return msgspec.json.encode(content).decode() + "\n"


def message(seen: Seen) -> str:
    return f"{seen.method} {shown_path(seen.path)} {seen.status} {seen.seconds * 1000:.0f}ms"
