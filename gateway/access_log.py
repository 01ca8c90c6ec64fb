"""One short line for each request: no prompts, no keys, no query strings.

Lines are gathered and written together, several times a second: writing each by itself would cost a request
as much as finding its key and its route.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple, TextIO
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ClientGone

log = logging.getLogger("hearth.gateway.access")

QUIET = ("/healthz", "/readyz", "/metrics")
CLIENT_GONE = 499
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./:-]{1,200}")
WRITTEN_AFTER = 0.2
MOST_LINES = 1000
"""So many are written at once, without waiting."""


class Noted:
    """A `send` that remembers the answer's status; without one the caller has left."""

    __slots__ = ("_send", "has_begun", "status")

    def __init__(self, send: Send) -> None:
        self.status = CLIENT_GONE
        self.has_begun = False
        self._send = send

    async def __call__(self, message: Message) -> None:
        if not self.has_begun:
            self.has_begun = True
            self.status = message["status"]
        await self._send(message)


class Seen(NamedTuple):
    """A request that has been answered."""

    moment: float
    method: str
    path: str
    status: int
    seconds: float
    notes: dict[str, str]


class Lines:
    """Lines on their way to a stream; they are made when they are written."""

    def __init__(self, stream: Callable[[], TextIO] = lambda: sys.stderr) -> None:
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
                lines = [f"{clock(seen.moment)} INFO {log.name} {line(seen)}\n" for seen in held]
                stream.write("".join(lines))
                stream.flush()


class AccessLog:
    """ASGI middleware: logs and counts requests. Endpoints add to `scope["notes"]` what they learn."""

    def __init__(self, app: ASGIApp, lines: Lines) -> None:
        self._app = app
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes: dict[str, str] = {}
        scope["notes"] = notes
        noted = Noted(send)
        started = time.monotonic()
        try:
            await self._app(scope, receive, noted)
        except ClientGone:
            notes["client"] = "gone"
        except Exception:
            noted.status = 500
            raise
        finally:
            self._count(scope, noted.status)
            if scope["path"] not in QUIET and log.isEnabledFor(logging.INFO):
                seconds = time.monotonic() - started
                seen = Seen(time.time(), scope["method"], scope["path"], noted.status, seconds, notes)
                self._lines.add(seen)

    def _count(self, scope: Scope, status: int) -> None:
        # The route's own pattern, so that callers cannot make up labels without end.
        route = scope.get("route")
        endpoint = route.path if route is not None else "none"
        scope["app"].state.gateway.telemetry.requests[endpoint, status] += 1


def line(seen: Seen) -> str:
    known = "".join([f" {name}={value}" for name, value in seen.notes.items()])
    path = seen.path
    if not PLAIN_PATH.fullmatch(path):
        path = quote(path, safe="/:")[:200]
    return f"{seen.method} {path} {seen.status} {seen.seconds * 1000:.0f}ms{known}"


def clock(moment: float) -> str:
    """As the log's other lines have it: local time, with milliseconds."""
    return f"{_second(int(moment))},{int(moment * 1000) % 1000:03d}"


@lru_cache(maxsize=4)
def _second(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
