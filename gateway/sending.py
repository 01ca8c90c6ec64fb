"""Answers on their way out: a caller that never reads holds nothing for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Message, Send

from gateway.timers import Bound, Timers

WAITS_FOR_NOBODY = 32 * 1024
"""An answer of fewer bytes is taken by the server whether its caller reads it or not."""


class BoundedSend:
    """A `send` that gives the request up when one piece has been waiting for its caller for too long."""

    __slots__ = ("_give_up", "_loop", "_seconds", "_send", "_since", "_timer", "_timers")

    def __init__(self, send: Send, timers: Timers, seconds: float, give_up: Callable[[], None]) -> None:
        self._send = send
        self._timers = timers
        self._loop = timers.loop
        self._seconds = seconds
        self._give_up = give_up
        self._since = 0.0
        """When the piece was begun that is being sent; 0 between two."""
        self._timer: asyncio.TimerHandle | Bound | None = None

    def __call__(self, message: Message) -> Awaitable[None]:
        if self._timer is None:
            if not message.get("more_body") and len(message.get("body", b"")) < WAITS_FOR_NOBODY:
                return self._send(message)
            # One timer for the whole answer: one for each piece would cost more than sending it.
            self._timer = self._timers.after(self._seconds, self._look)
        return self._send_watched(message)

    async def _send_watched(self, message: Message) -> None:
        self._since = self._loop.time()
        try:
            await self._send(message)
        finally:
            self._since = 0.0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        waited = self._loop.time() - self._since if self._since else 0.0
        if waited >= self._seconds:
            self._give_up()
        else:
            self._timer = self._loop.call_later(self._seconds - waited, self._look)
