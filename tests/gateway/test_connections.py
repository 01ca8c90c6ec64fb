"""Connections to engines: used again, given up, and closed, whatever the engine does with them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from gateway.connections import HELD_BYTES, Broken, Connections, Silent, Unreachable
from gateway.limits import Limits

LIMITS = Limits(silence_seconds=5.0, connect_seconds=2.0)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


class Engine:
    """Reads requests and does with each what the test says. `callers` counts connections."""

    def __init__(self, behave: Behaviour) -> None:
        self.callers = 0
        self.requests = 0
        self.left = asyncio.Event()
        self._behave = behave

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.callers += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                self.requests += 1
                await self._behave(reader, writer, self.requests)
                await writer.drain()
        self.left.set()
        writer.close()


@pytest.fixture
async def started():
    """Starts an engine that behaves so, and connections to it."""
    everything = []

    async def start(behave: Behaviour, limits: Limits = LIMITS) -> tuple[Engine, str, Connections]:
        engine, connections = Engine(behave), Connections(limits)
        everything.append((engine, connections))
        return engine, await engine.start(), connections

    yield start
    for engine, connections in everything:
        await connections.close()
        await engine.stop()


async def ask(connections: Connections, url: str) -> bytes:
    answer = await connections.post(url, "/v1/completions", b"{}", "id")
    try:
        return await answer.read(1_000_000)
    finally:
        answer.release()


async def answers(_reader, writer, _number) -> None:
    writer.write(WHOLE)


async def test_a_connection_is_used_again(started):
    engine, url, connections = await started(answers)
    assert [await ask(connections, url) for _ in range(5)] == [b"ok"] * 5
    assert (engine.callers, engine.requests) == (1, 5)


async def test_requests_at_one_time_have_connections_of_their_own(started):
    engine, url, connections = await started(answers)
    assert await asyncio.gather(*[ask(connections, url) for _ in range(5)]) == [b"ok"] * 5
    assert engine.callers == 5


async def test_a_connection_that_was_closed_while_it_was_idle_is_replaced(started):
    async def answers_once(_reader, writer, _number) -> None:
        writer.write(WHOLE)
        writer.write_eof()

    _, url, connections = await started(answers_once)
    assert [await ask(connections, url) for _ in range(3)] == [b"ok"] * 3


async def test_an_engine_that_closes_at_the_second_request_is_asked_once_more(started):
    """It had closed the connection before it read the request: the race of every idle connection."""

    async def hangs_up_at_the_second(_reader, writer, number) -> None:
        if number == 2:
            writer.transport.abort()
        else:
            writer.write(WHOLE)

    engine, url, connections = await started(hangs_up_at_the_second)
    assert [await ask(connections, url) for _ in range(2)] == [b"ok"] * 2
    assert engine.requests == 3


async def test_an_engine_that_never_answers_is_unreachable_after_one_request(started):
    async def hangs_up(_reader, writer, _number) -> None:
        writer.transport.abort()

    engine, url, connections = await started(hangs_up)
    with pytest.raises(Unreachable):
        await ask(connections, url)
    assert engine.requests == 1


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        CHUNKED + b"5\r\nok",
        CHUNKED + b"2\r\nok\r\n",
        b"HTTP/1.1 200",
    ],
)
async def test_an_answer_that_ends_in_the_middle_is_broken(started, said):
    async def dies(_reader, writer, _number) -> None:
        writer.write(said)
        await writer.drain()
        writer.write_eof()

    _, url, connections = await started(dies)
    with pytest.raises(Broken):
        await ask(connections, url)


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9\r\n", CHUNKED + b"nonsense\r\n", b"\x00" * 50])
async def test_what_is_no_http_is_broken(started, said):
    async def talks_nonsense(_reader, writer, _number) -> None:
        writer.write(said)

    _, url, connections = await started(talks_nonsense)
    with pytest.raises(Broken):
        await ask(connections, url)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"])
async def test_a_silent_engine_is_given_up_and_told_so(started, said):
    async def falls_silent(_reader, writer, _number) -> None:
        writer.write(said)

    engine, url, connections = await started(falls_silent, replace(LIMITS, silence_seconds=0.1))
    with pytest.raises(Silent):
        await ask(connections, url)
    async with asyncio.timeout(5):
        await engine.left.wait()


async def test_a_slow_engine_is_waited_for_as_long_as_it_says_something(started):
    async def dribbles(_reader, writer, _number) -> None:
        writer.write(CHUNKED)
        for _ in range(10):
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.1)
        writer.write(b"0\r\n\r\n")

    _, url, connections = await started(dribbles, replace(LIMITS, silence_seconds=0.6))
    assert await ask(connections, url) == b"x" * 10


async def test_a_second_answer_on_a_connection_reaches_nobody(started):
    async def answers_twice(_reader, writer, number) -> None:
        writer.write(WHOLE + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret" if number == 1 else WHOLE)

    engine, url, connections = await started(answers_twice)
    assert [await ask(connections, url) for _ in range(2)] == [b"ok"] * 2
    assert engine.callers == 2


@pytest.mark.parametrize("more", [b"HTTP/1.1 408 Request Timeout\r\n", b"HTTP/1.1 408 Late\r\nX-Pad: "])
async def test_the_beginning_of_a_second_answer_is_not_put_before_the_next_one(started, more):
    async def says_more(_reader, writer, number) -> None:
        writer.write(WHOLE + more if number == 1 else WHOLE)

    engine, url, connections = await started(says_more)
    statuses = []
    for _ in range(2):
        answer = await connections.post(url, "/v1/completions", b"{}", "id")
        statuses.append((answer.status, await answer.read(100)))
        answer.release()
    assert statuses == [(200, b"ok")] * 2
    assert engine.callers == 2


async def test_an_engine_that_wants_another_protocol_is_broken(started):
    async def switches(_reader, writer, _number) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")

    _, url, connections = await started(switches)
    with pytest.raises(Broken, match="no HTTP"):
        await ask(connections, url)


async def test_an_answer_that_nobody_read_to_its_end_holds_up_no_other_caller(started):
    """It was whole when its slow caller left, but so long that the connection was not read from any more."""

    async def begins(_reader, writer, number) -> None:
        writer.write(CHUNKED + b"2\r\nok\r\n" if number == 1 else WHOLE)

    _, url, connections = await started(begins)
    answer = await connections.post(url, "/v1/completions", b"{}", "id")
    assert await answer.part() == b"ok"
    # As the network brings it when all of it is there at once.
    size = HELD_BYTES + 1
    answer.data_received(b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n")
    assert answer.ended
    answer.release()
    async with asyncio.timeout(5):
        assert await ask(connections, url) == b"ok"


async def test_an_answer_that_is_larger_than_allowed_is_broken(started):
    async def goes_on(_reader, writer, _number) -> None:
        writer.write(CHUNKED)
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()

    engine, url, connections = await started(goes_on)
    with pytest.raises(Broken):
        await ask(connections, url)
    async with asyncio.timeout(5):
        await engine.left.wait()


async def test_an_engine_is_not_read_faster_than_its_caller_reads(started):
    sent = 0

    async def pours(_reader, writer, _number) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        for _ in range(1024):
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
            sent += 65536
        writer.write(b"0\r\n\r\n")

    _, url, connections = await started(pours, replace(LIMITS, silence_seconds=0.3))
    answer = await connections.post(url, "/v1/completions", b"{}", "id")
    seen = -1
    while seen != sent:  # until the engine cannot send any more, which takes longer than a silence
        seen = sent
        await asyncio.sleep(0.5)
    assert answer._held < HELD_BYTES + 2 * 262_144
    assert sent < 64 * 1024 * 1024
    total = 0
    while part := await answer.part():
        total += len(part)
    answer.release()
    assert total == 1024 * 65536


async def test_a_caller_that_lets_go_in_the_middle_ends_the_engines_work(started):
    async def begins(_reader, writer, _number) -> None:
        writer.write(CHUNKED + b"2\r\nok\r\n")

    engine, url, connections = await started(begins)
    answer = await connections.post(url, "/v1/completions", b"{}", "id")
    assert await answer.part() == b"ok"
    answer.release()
    async with asyncio.timeout(5):
        await engine.left.wait()


async def test_a_caller_that_is_cancelled_ends_the_engines_work(started):
    asked = asyncio.Event()

    async def thinks(_reader, _writer, _number) -> None:
        asked.set()

    engine, url, connections = await started(thinks)
    asking = asyncio.create_task(ask(connections, url))
    await asked.wait()
    asking.cancel()
    async with asyncio.timeout(5):
        await engine.left.wait()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_stream_whose_end_is_a_moment_late_keeps_its_connection(started):
    may_end = asyncio.Event()

    async def streams(_reader, writer, _number) -> None:
        writer.write(CHUNKED + b"4\r\ndone\r\n")
        await writer.drain()
        await may_end.wait()
        writer.write(b"0\r\n\r\n")

    engine, url, connections = await started(streams)
    answer = await connections.post(url, "/v1/completions", b"{}", "id")
    assert await answer.part() == b"done"
    answer.release(nearly_ended=True)
    may_end.set()
    async with asyncio.timeout(5):
        while not answer.is_usable:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert await ask(connections, url) == b"done"
    assert engine.callers == 1


async def test_a_stream_that_goes_on_after_its_end_keeps_no_connection(started):
    may_go_on = asyncio.Event()

    async def streams(_reader, writer, number) -> None:
        if number == 2:
            writer.write(WHOLE)
            return
        writer.write(CHUNKED + b"4\r\ndone\r\n")
        await writer.drain()
        await may_go_on.wait()
        writer.write(b"4\r\nmore\r\n0\r\n\r\n")

    engine, url, connections = await started(streams)
    answer = await connections.post(url, "/v1/completions", b"{}", "id")
    assert await answer.part() == b"done"
    answer.release(nearly_ended=True)
    may_go_on.set()
    async with asyncio.timeout(5):
        await engine.left.wait()
    assert await ask(connections, url) == b"ok"
    assert engine.callers == 2


async def test_an_address_where_nobody_listens_is_unreachable(started):
    engine, url, connections = await started(answers)
    await engine.stop()
    with pytest.raises(Unreachable):
        await ask(connections, url)


def has_sixth_version() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


if has_sixth_version():

    async def test_an_address_of_the_sixth_version_is_one(started):
        connections = Connections(LIMITS)
        server = await asyncio.start_server(Engine(answers)._accept, "::1", 0)
        assert await ask(connections, f"http://[::1]:{server.sockets[0].getsockname()[1]}") == b"ok"
        await connections.close()
        server.close()
