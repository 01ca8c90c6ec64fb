"""Requests as they come in: slowly, in pieces, or from callers that leave."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from gateway.errors import ClientGone
from gateway.incoming import Incoming
from tests.gateway.serving import wait_until


def head(served, length: int) -> bytes:
    lines = ["POST /v1/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {served.key}"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def connected(running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])), timeout=30)


def test_a_body_that_comes_in_pieces_is_read(served):
    body = json.dumps({"model": served.base, "prompt": "count " * 50_000}).encode()
    with connected(served.running) as caller:
        caller.sendall(head(served, len(body)))
        for start in range(0, len(body), 50_000):
            caller.sendall(body[start : start + 50_000])
        assert caller.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert served.engine.bodies[0]["prompt"] == "count " * 50_000


def test_a_body_that_does_not_arrive_in_time_is_given_up(served, start_gateway, limits):
    running = start_gateway(limits(body_seconds=0.2))
    with connected(running) as caller:
        caller.sendall(head(served, 100) + b'{"model": ')
        assert caller.recv(65536).startswith(b"HTTP/1.1 408 ")
    assert not running.gateway.admission.held


def test_a_caller_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(served):
    admission = served.running.gateway.admission
    with connected(served.running) as caller:
        caller.sendall(head(served, 100) + b'{"model": ')
        assert wait_until(lambda: admission.bytes)
    assert wait_until(lambda: not admission.held)
    assert admission.bytes == 0
    assert served.engine.requests == []


class Caller:
    """An ASGI caller that has sent its body, and leaves when it is told to."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()
        self._sent = False

    async def receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": b"{}"}
        await self.leaves.wait()
        return {"type": "http.disconnect"}


async def incoming_of(caller: Caller) -> Incoming:
    incoming = Incoming(caller.receive)
    await incoming.skip_body()
    return incoming


async def test_work_is_cancelled_when_the_caller_leaves_and_lets_go_of_what_it_has():
    caller, ended = Caller(), []

    async def work() -> None:
        caller.leaves.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(ClientGone):
        await (await incoming_of(caller)).until_gone(work())
    assert ended
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_work_that_is_done_before_the_caller_leaves_ends_by_itself():
    caller = Caller()
    await (await incoming_of(caller)).until_gone(asyncio.sleep(0.05))
    caller.leaves.set()
    await asyncio.sleep(0.05)  # nothing is left that could cancel this


async def test_being_cancelled_from_outside_is_no_caller_that_left():
    async def ask() -> None:
        await (await incoming_of(Caller())).until_gone(asyncio.Event().wait())

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
