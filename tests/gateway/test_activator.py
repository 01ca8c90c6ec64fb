"""Requests that wait for a first replica. The routes are a test's own; waits end by what happens."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.activator import Activator
from gateway.errors import GatewayError, unavailable
from gateway.limits import Limits
from gateway.load import LoadBook
from gateway.snapshot import Deployment, Model, Route, Target
from gateway.telemetry import Telemetry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = Model("acme", "m", "HF_BASE_MODEL", False, NOW, 128, True, False, False)
ASLEEP = Deployment(uuid.uuid4(), "acme", "d", "READY", "", 128, 0, desired_replicas=0, most_replicas=1)
ROUTE = Route("acme", "m-1", "UPDATING", "OK", "", True, False, True, NOW, MODEL, ASLEEP, ())
SERVING = replace(ROUTE, targets=(Target(uuid.uuid4(), "http://127.0.0.1:1", "base"),))
LIMITS = Limits(waiting=2, waiting_bytes=100, keep_alive_seconds=0.01)


class Stage:
    """One deployment, and what the activator does to it."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.route = ROUTE
        self.woken: list[uuid.UUID] = []
        self.signs = 0
        self.failure: Exception | None = None
        self.book = LoadBook()
        self.activator = Activator(limits, self.book, self.wake, Telemetry())

    async def wake(self, uid: uuid.UUID) -> None:
        self.woken.append(uid)
        if self.failure:
            raise self.failure

    async def sign(self) -> None:
        self.signs += 1

    def wait(self, size: int = 10, seconds: float = 60) -> asyncio.Task[Route]:
        waiting = self.activator.until_ready(
            lambda: self.route,
            lambda _route: unavailable("DEPLOYMENT_SCALING_UP", "no replica"),
            size=size,
            seconds=seconds,
            meanwhile=self.sign,
        )
        return asyncio.ensure_future(waiting)

    async def serve(self) -> None:
        self.route = SERVING
        self.activator.tell()

    @property
    def waiting(self) -> int:
        return self.book.look()[ASLEEP.uid].waiting


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_ready_route_is_not_held_up(stage: Stage) -> None:
    stage.route = SERVING
    assert await stage.wait() is SERVING
    assert stage.woken == []


async def test_a_sleeping_deployment_is_woken_once_for_all_who_wait(stage: Stage) -> None:
    first, second = stage.wait(), stage.wait()
    await until(lambda: stage.activator.held == 2)
    assert stage.waiting == 2
    await stage.serve()
    assert await asyncio.gather(first, second) == [SERVING, SERVING]
    assert stage.woken == [ASLEEP.uid]
    assert (stage.activator.held, stage.activator.held_bytes, stage.waiting) == (0, 0, 0)


async def test_one_that_is_starting_already_is_not_woken(stage: Stage) -> None:
    stage.route = replace(ROUTE, deployment=replace(ASLEEP, desired_replicas=1))
    waiting = stage.wait()
    await until(lambda: stage.activator.held == 1)
    await stage.serve()
    assert await waiting is SERVING
    assert stage.woken == []


async def test_there_are_signs_of_life_however_much_news_there_is(stage: Stage) -> None:
    waiting = stage.wait()

    def news_and_two_signs() -> bool:
        stage.activator.tell()
        return stage.signs >= 2

    await until(news_and_two_signs)
    await stage.serve()
    await waiting


async def test_a_database_that_is_away_does_not_end_the_wait(stage: Stage) -> None:
    stage.failure = OSError("no route to host")
    waiting = stage.wait()
    await until(lambda: stage.woken)
    await stage.serve()
    assert await waiting is SERVING


@pytest.mark.parametrize("seconds", [0, 0.02])
async def test_who_does_not_want_to_wait_any_longer_is_told_and_it_is_woken_all_the_same(
    stage: Stage, seconds: float
) -> None:
    with pytest.raises(GatewayError) as refused:
        await stage.wait(seconds=seconds)
    assert (refused.value.status, refused.value.code) == (503, "DEPLOYMENT_SCALING_UP")
    assert stage.activator.held == 0
    assert stage.woken == [ASLEEP.uid]


@pytest.mark.parametrize(
    "vain",
    [
        replace(ROUTE, deployment=replace(ASLEEP, state="FAILED")),
        replace(ROUTE, deployment=replace(ASLEEP, most_replicas=0)),
        replace(
            ROUTE,
            state="DEPLOYING",
            status_code="INVALID_ARGUMENT",
            deployment=replace(ASLEEP, ready_replicas=1),
        ),
    ],
    ids=["failed", "shut", "a broken addon"],
)
async def test_nobody_waits_in_vain(stage: Stage, vain: Route) -> None:
    waiting = stage.wait()
    await until(lambda: stage.activator.held == 1)
    stage.route = vain
    stage.activator.tell()
    for task in (waiting, stage.wait()):
        with pytest.raises(GatewayError):
            await task
    assert stage.activator.held == 0


@pytest.mark.parametrize("sizes", [(10, 10, 10), (60, 60)], ids=["too many", "too large"])
async def test_more_than_fits_is_refused_at_once(stage: Stage, sizes: tuple[int, ...]) -> None:
    held = [stage.wait(size) for size in sizes[:-1]]
    await until(lambda: stage.activator.held == len(held))
    with pytest.raises(GatewayError) as refused:
        await stage.wait(sizes[-1])
    assert refused.value.headers["Retry-After"]
    await stage.serve()
    await asyncio.gather(*held)


async def test_a_caller_who_leaves_gives_up_the_place(stage: Stage) -> None:
    waiting = stage.wait()
    await until(lambda: stage.activator.held == 1)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (stage.activator.held, stage.activator.held_bytes, stage.waiting) == (0, 0, 0)
