"""Bounds on time that share a timer of the loop: each is over when it should be, unless it is cancelled."""

import asyncio
import gc
import weakref

from gateway.timers import Timers


class Loop:
    """A loop whose time passes when it is told to: only what the timers use."""

    def __init__(self):
        self.now = 100.0
        self.set_at = []
        self._calls = []

    def time(self):
        return self.now

    def call_later(self, delay, call):
        self.set_at.append(round(self.now + delay, 3))
        self._calls.append((self.now + delay, call))
        return self._calls[-1]

    def pass_time(self, seconds):
        self.now += seconds
        due = [call for at, call in self._calls if at <= self.now + 1e-9]
        self._calls = [(at, call) for at, call in self._calls if at > self.now + 1e-9]
        for call in due:
            call()


def test_each_bound_is_over_in_its_turn_and_one_timer_is_set_for_all():
    loop, over = Loop(), []
    timers = Timers(loop)
    for name in "abc":
        timers.after(10, lambda name=name: over.append((name, loop.now)))
        loop.pass_time(1)
    assert loop.set_at == [110]
    for _ in range(9):
        loop.pass_time(1)
    assert over == [("a", 110), ("b", 111), ("c", 112)]
    assert loop.set_at == [110, 111, 112]
    timers.after(10, lambda: over.append("again"))
    loop.pass_time(10)
    assert over[-1] == "again"


def test_what_is_cancelled_is_not_called_nor_kept():
    loop, over = Loop(), []
    timers = Timers(loop)
    bounds = [timers.after(5, lambda number=number: over.append(number)) for number in range(3)]
    bounds[0].cancel()
    bounds[0].cancel()
    bounds[2].cancel()
    assert len(timers._queues[5].waiting) == 1
    loop.pass_time(5)
    bounds[1].cancel()
    assert over == [1]
    assert not timers._queues[5].waiting


def test_a_bound_that_is_over_may_cancel_and_set_others_or_fail():
    loop, over = Loop(), []
    timers = Timers(loop)

    def first():
        second.cancel()
        timers.after(5, lambda: over.append("new"))
        raise RuntimeError

    timers.after(5, first)
    second = timers.after(5, lambda: over.append("second"))
    timers.after(5, lambda: over.append("third"))
    try:
        loop.pass_time(5)
    except RuntimeError:
        over.append("failed")
    loop.pass_time(0)
    loop.pass_time(5)
    assert over == ["failed", "third", "new"]


class Keeper:
    def __init__(self, timers: Timers) -> None:
        self.bound = timers.after(5, self.give_up)

    def give_up(self) -> None:
        """Never."""


def test_who_keeps_a_bound_that_was_cancelled_leaves_without_the_garbage_collector():
    keeper = Keeper(Timers(Loop()))
    gone = weakref.ref(keeper)
    keeper.bound.cancel()
    gc.disable()
    try:
        del keeper
        assert gone() is None
    finally:
        gc.enable()


def test_lengths_do_not_wait_for_each_other():
    loop, over = Loop(), []
    timers = Timers(loop)
    timers.after(60, lambda: over.append("long"))
    timers.after(1, lambda: over.append("short"))
    loop.pass_time(1)
    assert over == ["short"]
    loop.pass_time(59)
    assert over == ["short", "long"]


async def test_a_real_loop_calls_them():
    called = asyncio.Event()
    Timers(asyncio.get_running_loop()).after(0.01, called.set)
    async with asyncio.timeout(10):
        await called.wait()
