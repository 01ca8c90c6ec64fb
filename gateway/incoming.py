"""The request as it comes in: its body within bounds, and whether the caller is still there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import msgspec
from starlette.types import Receive, Scope

from gateway.checks import NOT_JSON
from gateway.errors import ClientGone, GatewayError, invalid, too_large, too_late
from gateway.limits import Limits
from gateway.timers import Timers

WATCHED_AFTER = 0.02
"""Seconds after which a request is worth a task of its own that waits for its caller's leaving."""


class Incoming:
    """Owns an ASGI `receive`: first the body is read from it, then it tells of the disconnect."""

    def __init__(self, receive: Receive, timers: Timers | None = None) -> None:
        # Asking asyncio for the loop is a call to the system each time.
        self.timers = timers or Timers(asyncio.get_running_loop())
        task = asyncio.current_task(self.timers.loop)
        assert task is not None
        self.task = task
        self._receive = receive
        self._watch: _Watch | None = None
        self._told_of_end: asyncio.Event | None = None
        self.has_ended = False
        """The body has come to its end."""
        self.is_late = False
        """The body has taken too long, and the work was cancelled for it."""
        self.is_gone = False
        """The caller left before the end of its body."""
        self.size = 0
        """Bytes of the body that have come."""

    async def next(self) -> bytes:
        """The next piece of the body; ClientGone when the caller leaves in the middle."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_gone = True
            raise ClientGone
        if not message.get("more_body", False):
            self.has_ended = True
            if self._told_of_end is not None:
                self._told_of_end.set()
        piece: bytes = message.get("body", b"")
        self.size += len(piece)
        return piece

    async def chunks(self) -> AsyncIterator[bytes]:
        """The rest of the body, piece by piece."""
        while not self.has_ended:
            if chunk := await self.next():
                yield chunk

    async def skip_body(self) -> None:
        """For requests that have none that matters."""
        async for _ in self.chunks():
            pass

    async def until_gone(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, and cancel it when the caller goes away, which raises ClientGone."""
        watch = self._watch = _Watch(self.timers, self.task, self._gone)
        try:
            await work
        except asyncio.CancelledError:
            if watch.has_cancelled and not watch.task.uncancel():
                raise ClientGone from None
            raise
        finally:
            watch.stop()
            self._watch = None  # they refer to each other

    def give_up(self) -> None:
        """End the work as if the caller had gone."""
        if self._watch is not None:
            self._watch.cancel()

    def cancel_late(self) -> None:
        self.is_late = True
        self.task.cancel()

    async def _gone(self) -> None:
        if not self.has_ended:
            self._told_of_end = asyncio.Event()
            await self._told_of_end.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


class _Watch:
    """Looks out for the caller's leaving, but for a moment first: most answers are there before that."""

    def __init__(
        self, timers: Timers, task: asyncio.Task[Any], gone: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self.has_cancelled = False
        self.task = task
        self._gone = gone
        self._looking: asyncio.Task[None] | None = None
        self._timer = timers.after(WATCHED_AFTER, self._start)

    def stop(self) -> None:
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def cancel(self) -> None:
        if not self.has_cancelled:
            self.has_cancelled = True
            self.task.cancel()

    def _start(self) -> None:
        self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        await self._gone()
        self.cancel()


def read_headers(scope: Scope) -> dict[str, str]:
    """The first of each header, by its name in lower case."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


async def read_json(
    incoming: Incoming, headers: Mapping[str, str], limits: Limits, hold: Callable[[int], None]
) -> dict[str, Any]:
    """The body as a JSON object, of bounded size, depth and time. `hold` counts its bytes as they come."""
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.body_bytes:
        raise too_large(limits.body_bytes)
    # What asyncio.timeout does costs more than reading a body that is there already.
    timer = incoming.timers.after(limits.body_seconds, incoming.cancel_late)
    try:
        text = await incoming.next()
        hold(len(text))
        if not incoming.has_ended:
            text = await _read_on(text, incoming, limits.body_bytes, hold)
    except asyncio.CancelledError:
        if incoming.is_late and not incoming.task.uncancel():
            raise too_late() from None
        raise
    finally:
        timer.cancel()
    if len(text) > limits.body_bytes:
        raise too_large(limits.body_bytes)
    return parse_object(text, limits.body_depth)


async def _read_on(first: bytes, incoming: Incoming, limit: int, hold: Callable[[int], None]) -> bytes:
    """The body that begins so, as far as it is worth reading."""
    whole = bytearray(first)
    async for chunk in incoming.chunks():
        hold(len(chunk))
        whole += chunk
        if len(whole) > limit:
            break
    return bytes(whole)


def parse_object(text: bytes, depth: int) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        raise _too_deep(depth) from None
    except NOT_JSON as error:
        raise invalid(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object")
    # No text is nested more deeply than it has brackets.
    if text.count(b"{") + text.count(b"[") > depth:
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
