"""What the gateway's server writes: the same as uvicorn, in fewer pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.protocol import Protocol

Header = tuple[bytes, bytes]
JSON: Header = (b"content-type", b"application/json")
BODY = b'{"text": "\xc3\xbc"}'
LENGTH: Header = (b"content-length", b"%d" % len(BODY))


class Pieces(asyncio.Transport):
    """Keeps what is written instead of sending it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        if data:
            self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Answers:
    """An app that sends one thing after the other, and then may fail."""

    def __init__(self, *messages: dict[str, Any], fails: bool = False) -> None:
        self._messages = messages
        self._fails = fails

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in self._messages:
            await send(dict(message))
        if self._fails:
            raise ValueError("on purpose")


def start(*headers: Header, status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


WHOLE = Answers(start(JSON, LENGTH), body(BODY))
APPS = {
    "whole": WHOLE,
    "an error": Answers(start(JSON, LENGTH, status=404), body(BODY)),
    "nothing": Answers(start((b"content-length", b"0"), status=204), body(b"")),
    "a length that is too small": Answers(start(JSON, (b"content-length", b"3")), body(BODY)),
    "a length that is too large": Answers(start(JSON, (b"content-length", b"300")), body(BODY)),
    "no length": Answers(start(JSON), body(BODY)),
    "a stream": Answers(start(JSON), body(b"one", more=True), body(b"two")),
    "a body in pieces": Answers(start(JSON, LENGTH), body(BODY[:5], more=True), body(BODY[5:])),
    "a connection that is to be closed": Answers(start(LENGTH, (b"connection", b"close")), body(BODY)),
    "a header of two lines": Answers(start(LENGTH, (b"x-id", b"a\r\nset-cookie: b")), body(BODY)),
    "a header with a line feed": Answers(start(LENGTH, (b"x-id", b"a\n")), body(BODY)),
    "a header with a zero byte": Answers(start(LENGTH, (b"x-id", b"a\0")), body(BODY)),
    "a header that is no ASCII": Answers(start(LENGTH, (b"x-id", b"\xfc")), body(BODY)),
    "a header with a tab": Answers(start(LENGTH, (b"x-id", b"a\tb")), body(BODY)),
    "two heads": Answers(start((b"content-length", b"0")), start((b"content-length", b"0"))),
    "a body first": Answers(body(BODY)),
    "too much": Answers(start(LENGTH), body(BODY), body(BODY)),
    "a failure at the end": Answers(start(LENGTH), body(BODY), fails=True),
}
REQUESTS = {
    "POST": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "GET": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "the last one": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "to be told to go on": b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    "several at once": b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no HTTP": b"\0\r\n\r\n",
}


async def pieces(
    protocol: Callable[..., HttpToolsProtocol], app: Any, request: bytes
) -> tuple[list[bytes], bool]:
    """What a caller is written, piece by piece, and whether its connection is closed then."""
    config = Config(app, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Thu, 01 Jan 2026 00:00:00 GMT")]
    transport, connection = Pieces(), protocol(config, state, {}, asyncio.get_running_loop())
    connection.connection_made(transport)
    connection.data_received(request)
    while state.tasks:
        await asyncio.wait(list(state.tasks))
        await asyncio.sleep(0)
    connection.connection_lost(None)
    return transport.written, transport.is_closed


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_callers_read_what_uvicorn_would_write(app: Answers, request_: bytes) -> None:
    ours, theirs = await pieces(Protocol, app, request_), await pieces(HttpToolsProtocol, app, request_)
    assert (b"".join(ours[0]), ours[1]) == (b"".join(theirs[0]), theirs[1])


async def test_an_answer_that_is_whole_leaves_in_one_piece() -> None:
    written, _ = await pieces(Protocol, WHOLE, REQUESTS["POST"])
    assert len(written) == 1
    assert written[0].endswith(b"\r\n\r\n" + BODY)


async def test_who_fails_before_the_body_begins_answers_500_instead_of_breaking_off() -> None:
    failing = Answers(start(JSON, LENGTH), fails=True)
    written, is_closed = await pieces(Protocol, failing, REQUESTS["POST"])
    assert b"".join(written).startswith(b"HTTP/1.1 500 ")
    assert is_closed


async def test_a_caller_that_has_left_is_written_nothing() -> None:
    left = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await left.wait()
        await send(start(JSON, LENGTH))
        await send(body(BODY))

    config = Config(app, lifespan="off", log_config=None)
    config.load()
    state, transport = ServerState(), Pieces()
    connection = Protocol(config, state, {}, asyncio.get_running_loop())
    connection.connection_made(transport)
    connection.data_received(REQUESTS["POST"])
    connection.connection_lost(None)
    left.set()
    await asyncio.wait(list(state.tasks))
    assert transport.written == []
