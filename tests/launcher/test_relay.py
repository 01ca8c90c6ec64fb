from __future__ import annotations

import asyncio

from launcher.relay import serve_relay


async def echo_upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers once the other side has said all it has to say."""
    writer.write((await reader.read()).upper())
    writer.close()


async def test_bytes_go_both_ways_and_each_way_ends_on_its_own() -> None:
    target = await asyncio.start_server(echo_upper, "127.0.0.1", 0)
    relay = await serve_relay("127.0.0.1", 0, target.sockets[0].getsockname()[1])
    async with target, relay:
        reader, writer = await asyncio.open_connection(*relay.sockets[0].getsockname())
        writer.write(b"weights" * 100_000)
        writer.write_eof()
        assert await reader.read() == b"WEIGHTS" * 100_000
        writer.close()


async def test_a_client_is_let_go_when_nobody_listens_behind() -> None:
    gone = await asyncio.start_server(echo_upper, "127.0.0.1", 0)
    port = gone.sockets[0].getsockname()[1]
    gone.close()
    await gone.wait_closed()
    async with await serve_relay("127.0.0.1", 0, port) as relay:
        reader, _ = await asyncio.open_connection(*relay.sockets[0].getsockname())
        assert await reader.read() == b""
