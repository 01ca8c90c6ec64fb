"""How the gateway's server writes answers that are whole: head and body at once, after one look at the head.

uvicorn writes them one after the other, which is a call to the system more, and searches each header by
itself. All else is left to it: reading, pipelines, streams, connections that end, and whatever is unusual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

PLAIN = bytes([*range(0x20, 0x7F), *range(0x80, 0x100)])
"""What headers may be made of. A line end in one of them would make two of it."""
COLON, LINE_END = b": ", b"\r\n"
CONNECTION, ENCODING = b"connection: ", b"transfer-encoding: "
"""Headers that change what is to be done when the answer ends."""


class Protocol(HttpToolsProtocol):
    """A caller's connection; for uvicorn's `--http`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.done: asyncio.Future[None] = self.loop.create_future()
        """To wait for where there is nothing to wait for, which costs no call."""
        self.done.set_result(None)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, Answering(cycle, app, self.done))


class Answering:
    """The app for one request. Its `send` keeps the head back until the body begins, as ASGI has it."""

    __slots__ = ("_app", "_cycle", "_done", "_start")

    def __init__(self, cycle: RequestResponseCycle, app: Any, done: Awaitable[None]) -> None:
        self._cycle = cycle
        self._app = app
        self._done = done
        self._start: Any = None

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        answered: Awaitable[None] = self._app(scope, receive, self.send)
        return answered

    def send(self, message: Any) -> Awaitable[None]:
        start, self._start = self._start, None
        if start is None:
            if message["type"] != "http.response.start":
                return self._cycle.send(message)
            self._start = message
            return self._done
        return self._done if send_whole(self._cycle, start, message) else self._send_both(start, message)

    async def _send_both(self, start: Any, message: Any) -> None:
        await self._cycle.send(start)
        await self._cycle.send(message)


def send_whole(cycle: RequestResponseCycle, start: Any, message: Any) -> bool:
    """Write an answer that can be written at once; False for one that needs more thought."""
    body, headers = message.get("body", b""), start.get("headers")
    if message["type"] != "http.response.body" or message.get("more_body") or type(headers) is not list:
        return False
    if (b"content-length", b"%d" % len(body)) not in headers or cycle.scope["method"] == "HEAD":
        return False
    if not cycle.keep_alive or cycle.disconnected or cycle.flow.write_paused or cycle.response_started:
        return False
    head = LINE_END.join(map(COLON.join, (*cycle.default_headers, *headers)))
    # Each header but one adds a line end, and none has anything else in it that is not plain.
    ends = LINE_END * (len(cycle.default_headers) + len(headers) - 1)
    if head.translate(None, PLAIN) != ends or CONNECTION in head or ENCODING in head:
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(LINE_END.join((STATUS_LINE[start["status"]] + head, b"", body)))
    cycle.message_event.set()
    cycle.on_response()
    return True
