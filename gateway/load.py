"""The load that this gateway carries, by deployment: counted as requests come and go, told to the board."""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from controlplane.load_board import (
    FRESH_SECONDS,
    GATEWAYS,
    MISSED_SECONDS,
    GatewayLoad,
    encode,
    figures_key,
    known_key,
)

log = logging.getLogger("hearth.gateway")

AVERAGED_SECONDS = 15.0
FORGOTTEN_SECONDS = 7200.0
"""After so long without a request a deployment is not spoken of any more."""
VALKEY_SECONDS = 2.0


@dataclass(slots=True)
class Totals:
    """What has grown since the gateway started."""

    busy: float = 0.0
    """Requests times seconds."""
    requests: int = 0
    generated: int = 0
    prompted: int = 0


@dataclass
class Carried:
    """One deployment's load. Times are of a clock that never goes back."""

    deployment: uuid.UUID
    in_flight: int = 0
    waiting: int = 0
    since: float = 0.0
    """When `in_flight` last changed."""
    last_request: float | None = None
    totals: Totals = field(default_factory=Totals)
    history: deque[tuple[float, Totals]] = field(default_factory=deque)
    """Earlier moments and what the totals were then, never empty."""

    def settle(self, now: float) -> None:
        """Count the time since the last change."""
        self.totals.busy += self.in_flight * (now - self.since)
        self.since = now

    def look(self, now: float) -> GatewayLoad:
        """The load of the last seconds. Called about once a second, which makes the history."""
        self.settle(now)
        while len(self.history) > 1 and now - self.history[0][0] > AVERAGED_SECONDS:
            self.history.popleft()
        then, before = self.history[0]
        totals, elapsed = self.totals, now - then
        self.history.append((now, Totals(totals.busy, totals.requests, totals.generated, totals.prompted)))
        if elapsed <= 0:
            return GatewayLoad(self.in_flight, self.waiting, quiet_seconds=self._quiet(now))
        return GatewayLoad(
            (totals.busy - before.busy) / elapsed,
            self.waiting,
            (totals.requests - before.requests) / elapsed,
            (totals.generated - before.generated) / elapsed,
            (totals.prompted - before.prompted) / elapsed,
            self._quiet(now),
        )

    def _quiet(self, now: float) -> float | None:
        return None if self.last_request is None else now - self.last_request


class LoadBook:
    """Every deployment's load at this gateway."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._carried: dict[int, Carried] = {}
        """By the number of the deployment's uid, since uids themselves are hashed by a call of Python's."""

    def begin(self, deployment: uuid.UUID) -> Carried:
        """A request to a deployment has come. Each one is ended, however it ends."""
        now, carried = self._clock(), self._of(deployment)
        carried.settle(now)
        carried.in_flight += 1
        carried.totals.requests += 1
        carried.last_request = now
        return carried

    def end(self, carried: Carried, prompt_tokens: int, generated_tokens: int) -> None:
        now = self._clock()
        carried.settle(now)
        carried.in_flight -= 1
        carried.totals.prompted += prompt_tokens
        carried.totals.generated += generated_tokens
        carried.last_request = now

    def wait(self, deployment: uuid.UUID, count: int) -> None:
        """So many more requests (fewer, when negative) wait for a first replica."""
        self._of(deployment).waiting += count

    def look(self) -> dict[uuid.UUID, GatewayLoad]:
        now = self._clock()
        for number, carried in list(self._carried.items()):
            quiet = now - (carried.last_request or now)
            if not carried.in_flight and not carried.waiting and quiet > FORGOTTEN_SECONDS:
                del self._carried[number]
        return {carried.deployment: carried.look(now) for carried in self._carried.values()}

    def _of(self, deployment: uuid.UUID) -> Carried:
        carried = self._carried.get(deployment.int)
        if carried is None:
            now = self._clock()
            carried = Carried(deployment, since=now, history=deque([(now, Totals())]))
            self._carried[deployment.int] = carried
        return carried


class LoadReport:
    """Tells the board, about once a second. While Valkey is away nothing is lost but time."""

    def __init__(self, redis_url: str, book: LoadBook) -> None:
        self.gateway_id = uuid.uuid4().hex
        self._book = book
        self._away = False
        self._valkey: Redis = Redis.from_url(
            redis_url,
            socket_timeout=VALKEY_SECONDS,
            socket_connect_timeout=VALKEY_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    async def tell(self) -> None:
        content = encode(self._book.look())
        try:
            async with self._valkey.pipeline(transaction=False) as pipeline:
                pipeline.sadd(GATEWAYS, self.gateway_id)
                pipeline.set(figures_key(self.gateway_id), content, ex=FRESH_SECONDS)
                pipeline.set(known_key(self.gateway_id), b"", ex=MISSED_SECONDS)
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            if not self._away:
                log.warning("the load board cannot be reached: %s; nothing is scaled down meanwhile", error)
            self._away = True
        else:
            self._away = False

    async def close(self) -> None:
        """Leave the board, so that nobody waits for more of this gateway."""
        try:
            async with self._valkey.pipeline(transaction=False) as pipeline:
                pipeline.srem(GATEWAYS, self.gateway_id)
                pipeline.delete(figures_key(self.gateway_id), known_key(self.gateway_id))
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError):
            pass  # it is missed for a while, and forgotten
        await self._valkey.aclose()
