"""The request as it comes in: its body within bounds, and whether the caller is still there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.types import Receive

from gateway.checks import NOT_JSON
from gateway.errors import ClientGone, GatewayError, invalid, too_large
from gateway.limits import Limits


class Incoming:
    """Owns an ASGI `receive`: first the body is read from it, then it tells of the disconnect."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._body_ended = asyncio.Event()
        self.is_gone = False
        """The caller left before the end of its body."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece; ClientGone when the caller leaves in the middle."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.is_gone = True
                raise ClientGone
            more = message.get("more_body", False)
            if not more:
                self._body_ended.set()
            if body := message.get("body", b""):
                yield body

    async def skip_body(self) -> None:
        """For requests that have none that matters."""
        async for _ in self.chunks():
            pass

    async def until_gone(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, and cancel it when the caller goes away, which raises ClientGone."""
        task = asyncio.create_task(work)
        gone = asyncio.create_task(self._gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientGone
            await task
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _gone(self) -> None:
        await self._body_ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def read_json(incoming: Incoming, headers: Headers, limits: Limits) -> dict[str, Any]:
    """The body as a JSON object, of bounded size, depth and time."""
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.body_bytes:
        raise too_large(limits.body_bytes)
    try:
        async with asyncio.timeout(limits.body_seconds):
            text = await _read(incoming, limits.body_bytes)
    except TimeoutError:
        raise GatewayError(408, "REQUEST_TIMEOUT", "the request's body did not arrive in time") from None
    return parse_object(text, limits.body_depth)


async def _read(incoming: Incoming, limit: int) -> bytes:
    received = bytearray()
    async for chunk in incoming.chunks():
        received += chunk
        if len(received) > limit:
            raise too_large(limit)
    return bytes(received)


def parse_object(text: bytes, depth: int) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        raise _too_deep(depth) from None
    except NOT_JSON as error:
        raise invalid(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object")
    _check_depth(value, depth)
    return value


def _check_depth(value: Any, limit: int) -> None:
    level: list[Any] = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _too_deep(limit)


def _too_deep(limit: int) -> GatewayError:
    return invalid(f"the body is nested more than {limit} levels deep")
