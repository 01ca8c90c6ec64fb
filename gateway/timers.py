"""Bounds on time that are hardly ever reached: all of one length share a timer of the loop.

To set a timer of the loop and to cancel it again costs a request about as much as checking its fields. Of
bounds of one length those that were set first are over first, so that one timer, for the oldest, is enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

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
            queue = self._queues[seconds] = _Queue(self.loop)
        bound = Bound(queue.waiting, self.loop.time() + seconds)
        queue.waiting[bound] = call
        if not queue.is_looking:
            queue.look_after(seconds)
        return bound


class Bound(msgspec.Struct, eq=False):
    """One of those that wait. It knows nothing of what it calls, which may keep it without a cycle."""

    waiting: dict[Bound, Callable[[], None]]
    over_at: float

    def cancel(self) -> None:
        self.waiting.pop(self, None)


class _Queue:
    """Bounds of one length, the oldest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting: dict[Bound, Callable[[], None]] = {}
        self.is_looking = False
        self._loop = loop

    def look_after(self, seconds: float) -> None:
        self.is_looking = True
        self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Called at once, not soon: who cancels a bound in between must not be called any more."""
        now = self._loop.time()
        try:
            while self.waiting:
                oldest = next(iter(self.waiting))
                if oldest.over_at > now + EARLY:
                    break
                self.waiting.pop(oldest)()
        finally:
            self.is_looking = False
            if self.waiting:
                self.look_after(max(next(iter(self.waiting)).over_at - now, 0))
