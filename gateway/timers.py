"""Bounds on time that are hardly ever reached: all of one length share a timer of the loop.

To set a timer of the loop and to cancel it again costs a request about as much as checking its fields. Of
bounds of one length those that were set first are over first, so that one timer, for the oldest, is enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

EARLY = 0.001
"""The loop counts milliseconds, and may call a timer by so much too soon."""


class Timers:
    """The bounds of one loop, by their lengths. For lengths that are few and stay the same."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._queues: dict[float, _Queue] = {}

    def after(self, seconds: float, call: Callable[[], None]) -> Bound:
        """Call `call` after so many seconds, unless what is returned is cancelled before."""
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = _Queue(self.loop, seconds)
        return Bound(queue, queue.add(call))


class Bound:
    __slots__ = ("_number", "_queue")

    def __init__(self, queue: _Queue, number: int) -> None:
        self._queue = queue
        self._number = number

    def cancel(self) -> None:
        self._queue.waiting.pop(self._number, None)


class _Queue:
    """Bounds of one length, the oldest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.waiting: dict[int, tuple[float, Callable[[], None]]] = {}
        """When each is over, and what is called then."""
        self._loop = loop
        self._seconds = seconds
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Callable[[], None]) -> int:
        number = next(self._numbers)
        self.waiting[number] = (self._loop.time() + self._seconds, call)
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)
        return number

    def _look(self) -> None:
        """Called at once, not soon: who cancels a bound in between must not be called any more."""
        now = self._loop.time()
        try:
            while self.waiting:
                number, (over_at, call) = next(iter(self.waiting.items()))
                if over_at > now + EARLY:
                    break
                del self.waiting[number]
                call()
        finally:
            self._timer = None
            if self.waiting:
                over_at, _ = next(iter(self.waiting.values()))
                self._timer = self._loop.call_later(max(over_at - now, 0), self._look)
