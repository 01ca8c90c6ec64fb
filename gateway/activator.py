"""Requests that wait for a first replica: their deployment is woken, and they are let go when one serves.

Waiting is bounded in number, bytes and time; what finds no place is told so at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from gateway.background import DATABASE_ERRORS, first_line
from gateway.errors import GatewayError, unavailable
from gateway.limits import Limits
from gateway.load import LoadBook
from gateway.snapshot import Route
from gateway.telemetry import Telemetry

log = logging.getLogger("hearth.gateway")

Wake = Callable[[uuid.UUID], Awaitable[None]]
"""Asks for a replica of a deployment; may fail, and may be asked again."""

RETRY_SECONDS = 2.0
"""Between two wakings of one deployment that does not show its effect."""


class Activator:
    def __init__(self, limits: Limits, book: LoadBook, wake: Wake, telemetry: Telemetry) -> None:
        self.held = 0
        self.held_bytes = 0
        self._limits = limits
        self._book = book
        self._wake = wake
        self._telemetry = telemetry
        self._woken: dict[uuid.UUID, float] = {}
        self._news = asyncio.Event()

    def tell(self) -> None:
        """There are new routes: everybody who waits looks again."""
        self._news.set()
        self._news = asyncio.Event()

    async def until_ready(
        self,
        find: Callable[[], Route],
        refusal: Callable[[Route], GatewayError],
        *,
        size: int,
        seconds: float,
        meanwhile: Callable[[], Awaitable[None]],
    ) -> Route:
        """The route once it has a replica to send the request to.

        `find` raises when the model is gone; `refusal` says why there is no replica; `size` is what the
        request holds in memory, in bytes; `meanwhile` is called every few seconds. Raises what the caller is
        to see when there will be no replica, none within `seconds`, or no place to wait.
        """
        route = find()
        if route.targets:
            return route
        if waits_in_vain(route):
            raise refusal(route)
        if seconds <= 0:
            await self._rouse(route)
            raise refusal(route)
        now = time.monotonic()
        deadline, sign_at = (
            now + min(seconds, self._limits.wait_seconds),
            now + self._limits.keep_alive_seconds,
        )
        with self._place(route, size):
            while not route.targets:
                await self._rouse(route)
                await self._until_news(min(deadline, sign_at))
                if time.monotonic() >= sign_at:
                    await meanwhile()
                    sign_at = time.monotonic() + self._limits.keep_alive_seconds
                route = find()
                over = waits_in_vain(route) or time.monotonic() >= deadline
                if not route.targets and over:
                    raise refusal(route)
        return route

    async def _until_news(self, latest: float) -> None:
        try:
            async with asyncio.timeout(max(latest - time.monotonic(), 0)):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _rouse(self, route: Route) -> None:
        """Wake the deployment, once for all who wait for it."""
        deployment, now = route.deployment, time.monotonic()
        if (
            deployment.desired_replicas > 0
            or now - self._woken.get(deployment.uid, -RETRY_SECONDS) < RETRY_SECONDS
        ):
            return
        self._woken[deployment.uid] = now
        try:
            await self._wake(deployment.uid)
            self._telemetry.see_cold_start(deployment.name)
        except DATABASE_ERRORS as error:
            log.warning("%s cannot be woken now: %s", deployment.name, first_line(error))

    @contextmanager
    def _place(self, route: Route, size: int) -> Iterator[None]:
        if self.held >= self._limits.waiting or self.held_bytes + size > self._limits.waiting_bytes:
            raise unavailable(
                "DEPLOYMENT_SCALING_UP",
                "the model's deployment is starting, and too many requests wait for it already",
                retry_after=5,
            )
        self.held += 1
        self.held_bytes += size
        self._book.wait(route.deployment.uid, 1)
        began = time.monotonic()
        try:
            yield
        finally:
            self.held -= 1
            self.held_bytes -= size
            self._book.wait(route.deployment.uid, -1)
            self._telemetry.see_wait(route.deployment.name, time.monotonic() - began)
            if not self.held:
                self._woken.clear()


def waits_in_vain(route: Route) -> bool:
    """Whether no replica will come that answers for the route."""
    deployment = route.deployment
    if deployment.state == "FAILED" or deployment.most_replicas == 0:
        return True
    return route.state == "DEPLOYING" and route.status_code != "OK" and deployment.ready_replicas > 0
