"""Makes the object store's port, which stays on this machine, reachable for clients on others."""

from __future__ import annotations

import asyncio
import contextlib

CHUNK_BYTES = 256 * 1024


async def serve_relay(host: str, port: int, target_port: int) -> asyncio.Server:
    """Pass every connection to `host:port` on to `target_port` of this machine."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", target_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))
        for each in (writer, upstream_writer):
            each.close()

    return await asyncio.start_server(serve, host, port)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
