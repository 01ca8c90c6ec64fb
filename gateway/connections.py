"""HTTP connections to engines: one request at a time on each, kept open between requests.

An engine's answer costs the gateway a fraction here of what it does through a general client, and a stream's
parts are given on as they are. Only what engines need is done: POST, an answer with a length or in chunks.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from typing import cast
from urllib.parse import urlsplit

import httptools

from gateway.limits import Limits
from gateway.timers import Bound, Timers

# Engines close idle connections after 5 s; using one again later races with that.
KEEPALIVE_SECONDS = 4.0
CLOSED_BEFORE_SECONDS = 1.0
"""Within which a kept connection that ends without an answer is taken for one that had ended already."""
END_SECONDS = 1.0
"""How long the last bytes of an answer may be behind its last event."""
HELD_BYTES = 256 * 1024
"""An engine whose caller reads more slowly than it writes is not read from beyond this."""

Address = tuple[str, int]


class Unreachable(Exception):
    """The engine gave no answer at all, so that another one may be asked."""


class Silent(Exception):
    """The engine has said nothing for too long."""


class Broken(Exception):
    """The engine's answer ended in the middle, is no HTTP, or is too large."""


class Connection(asyncio.Protocol):
    """A connection, and the answer that is being read from it.

    Whoever is given one by `Connections.post` calls `release` at the end, however that comes.
    """

    def __init__(
        self,
        address: Address,
        limits: Limits,
        timers: Timers,
        on_idle: Callable[[Connection], None],
    ) -> None:
        self.address = address
        self.idle_since = 0.0
        self.status = 0
        self.ended = False
        """The whole answer has arrived."""
        self._limits = limits
        self._on_idle = on_idle
        self._timers = timers
        self._loop = timers.loop
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | Bound | None = None
        self._busy = self._lasting = self._paused = False
        self._parts: list[bytes] = []
        # A stream has hundreds of chunks, several in each piece that is read: no call of ours for each.
        self.on_body = self._parts.append
        self._held = 0
        """Bytes that have been read since parts were taken."""
        self._failure: Exception | None = None
        self._heard_any = False

    @property
    def is_usable(self) -> bool:
        return not self._busy and not self._transport.is_closing()

    async def ask(self, request: bytes) -> None:
        """Send a request and wait for the head of its answer; it is released when there is none."""
        self._parts.clear()
        self._held = self.status = 0
        self._failure = None
        self._heard_any = self.ended = False
        self._busy = True
        self._heard = self._loop.time()
        self._timer = self._timers.after(self._limits.silence_seconds, self._look)
        self._transport.write(request)
        try:
            while not self.status:
                await self._more()
        except BaseException:
            self.release()
            raise

    def whole(self, limit: int) -> bytes:
        """The whole answer, where it is there already and no larger than `limit`; else nothing."""
        return self._take() if self.ended and self._held <= limit and self._parts else b""

    async def read(self, limit: int) -> bytes:
        """The whole answer; Broken when it is larger than `limit`."""
        found: list[bytes] = []
        size = 0
        while part := await self.part():
            found.append(part)
            size += len(part)
            if size > limit:
                raise Broken("the answer is too large")
        return found[0] if len(found) == 1 else b"".join(found)

    async def part(self) -> bytes:
        """What has arrived since the last call, or arrives next; empty at the end."""
        while not self._parts:
            if self.ended:
                return b""
            await self._more()
        return self._take()

    def _take(self) -> bytes:
        part = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        if self._paused:
            self._paused = False
            self._heard = self._loop.time()
            self._transport.resume_reading()
        return part

    def release(self, *, nearly_ended: bool = False) -> None:
        """Keep the connection for the next request, or close it in the middle, which stops the engine's work.

        `nearly_ended` says that nothing but the mark of the answer's end is to come.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._busy:
            return
        if self.ended and not self._paused:
            self._rest()
        elif nearly_ended and not self._parts and self._failure is None:
            self._lasting = True
            self._timer = self._loop.call_later(END_SECONDS, self._transport.abort)
        else:
            self.close()

    def close(self) -> None:
        self._busy = False
        self._transport.abort()

    def _rest(self) -> None:
        self._busy = self._lasting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._keeps_alive and not self._transport.is_closing():
            self.idle_since = self._loop.time()
            self._on_idle(self)
        else:
            self._transport.abort()

    def _more(self) -> asyncio.Future[None]:
        """Done when something has happened; raises what went wrong after all that came has been taken."""
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._wake()
        self._transport.abort()

    def _look(self) -> None:
        """Give an engine up that has been silent for too long; not one that we have stopped reading from."""
        now = self._loop.time()
        left = self._limits.silence_seconds - (0.0 if self._paused else now - self._heard)
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._fail(Silent())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        if not self._busy or self._parser is None:
            self._transport.abort()
            return
        self._heard_any = True
        self._heard = self._loop.time()
        self._held += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.ended:
                self._fail(Broken(f"no HTTP: {error}"))
                return
            self._transport.abort()
        if self._lasting and self._parts:
            self._transport.abort()  # nobody has asked for more
        elif self._held > HELD_BYTES and not self._paused and self._parts:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._parser = None  # it refers to this
        if self._busy and not self.ended and self._failure is None:
            ended = Broken("closed in the middle")
            self._failure = ended if self._heard_any else Unreachable("closed without an answer")
            self._wake()

    def on_message_begin(self) -> None:
        if self.ended:
            raise Broken("an answer that nobody has asked for")  # ends the reading

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if not self.status:
            return  # 1xx: the answer is still to come
        self.ended = True
        has_more = self._lasting and self._parts
        self._keeps_alive = self._parser.should_keep_alive() and not has_more
        if self._lasting:
            self._rest()


class Connections:
    """All connections of one gateway."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._timers = Timers(self._loop)
        self._idle: defaultdict[Address, list[Connection]] = defaultdict(list)
        self._sweep: asyncio.TimerHandle | None = None

    async def post(
        self, url: str, path: str, content: bytes, request_id: str, traceparent: str = ""
    ) -> Connection:
        """The connection on which an answer has begun. Raises Unreachable, Silent or Broken."""
        address, host = _address(url)
        trace = f"traceparent: {traceparent}\r\n" if traceparent else ""
        request = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"X-Request-Id: {request_id}\r\n{trace}Content-Length: {len(content)}\r\n\r\n"
        ).encode() + content
        kept = self._take(address)
        if kept is not None:
            asked_at = self._loop.time()
            try:
                await kept.ask(request)
            except Unreachable:
                # The engine may have closed it a moment before; later on it had the request and died of it.
                if self._loop.time() - asked_at > CLOSED_BEFORE_SECONDS:
                    raise
            else:
                return kept
        made = await self._connect(address)
        await made.ask(request)
        return made

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        if self._sweep is not None:
            self._sweep.cancel()

    async def _connect(self, address: Address) -> Connection:
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                _, made = await self._loop.create_connection(
                    lambda: Connection(address, self._limits, self._timers, self._keep), *address
                )
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"no connection: {str(error) or type(error).__name__}") from None
        return made

    def _take(self, address: Address) -> Connection | None:
        """The connection that was used last, so that the others grow old and are closed."""
        connections = self._idle.get(address)
        oldest = self._loop.time() - KEEPALIVE_SECONDS
        while connections:
            connection = connections.pop()
            if connection.is_usable and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        self._idle[connection.address].append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEEPALIVE_SECONDS, self._close_old)

    def _close_old(self) -> None:
        self._sweep = None
        oldest = self._loop.time() - KEEPALIVE_SECONDS
        for address, connections in list(self._idle.items()):
            young = [one for one in connections if one.is_usable and one.idle_since > oldest]
            for one in set(connections) - set(young):
                one.close()
            if young:
                self._idle[address] = young
            else:
                del self._idle[address]
        if self._idle:
            self._sweep = self._loop.call_later(KEEPALIVE_SECONDS, self._close_old)


@lru_cache(maxsize=4096)
def _address(url: str) -> tuple[Address, str]:
    """Where to connect to, and how that is written in `Host`."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise ValueError(f"an engine's address must begin with http://, not {url}")
    return (parts.hostname, parts.port or 80), parts.netloc
