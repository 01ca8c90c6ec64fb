"""Requests a minute to what others serve: counted across all gateways in Valkey, and in this one without it.

A sliding window: the requests of this minute, and of the one before as much as still lies within the last
sixty seconds. Valkey is asked only while it is known to answer, and for some milliseconds at most; without
it every gateway lets an account send as much as it has seen itself.

A gateway that is asked often takes several requests' places at once, and lets requests through on them
without asking again. Places count as used in the minute in which they were taken, and are good for that
minute only, so that never more requests are let through than the limit allows. What a gateway has taken and
not used is missing to the others until it slides out of the window: at most one `SHARE`-th of the limit for
each gateway.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from controlplane.resources.quotas.limits import Limit
from gateway.errors import GatewayError
from gateway.key_limits import KeyLimit, used_up
from gateway.limits import Limits

log = logging.getLogger("hearth.gateway")

WINDOW = 60.0
VALKEY_ERRORS = (RedisError, OSError, TimeoutError)
MISSES = 3
"""So many in a row, and Valkey is not asked any more until it answers in the background."""
CONNECTIONS = 32
KNOWN_ACCOUNTS = 10_000
TOLERANCE = 1e-6
"""Who waits as long as told must not be refused for the last digit of a weight."""

SHARE = 200
"""So much of a limit a gateway may take at once, and no more than it has let through in this minute."""
MOST_PLACES = 1000

TAKE = """
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
local before = tonumber(redis.call('GET', KEYS[2]) or '0')
local room = math.floor(tonumber(ARGV[1]) + 0.000001 - current - before * tonumber(ARGV[2]))
local taken = math.min(room, tonumber(ARGV[3]))
if taken < 1 then
  return {0, current, before}
end
redis.call('INCRBY', KEYS[1], taken)
redis.call('EXPIRE', KEYS[1], 180)
return {taken, current, before}
"""


class Window(msgspec.Struct, frozen=True):
    """A moment: which minute it lies in, and how much of the one before still counts."""

    minute: int
    weight: float

    @classmethod
    def at(cls, moment: float) -> Window:
        minute, elapsed = divmod(moment, WINDOW)
        return cls(int(minute), 1 - elapsed / WINDOW)


@dataclass(frozen=True)
class Seen:
    """What was counted when a request came, itself not included."""

    places: int
    """How many requests may come now."""
    current: int
    before: int

    @staticmethod
    def decide(limit: int, window: Window, current: int, before: int) -> Seen:
        return Seen(int(current + before * window.weight + 1 <= limit + TOLERANCE), current, before)

    def recent(self, window: Window) -> int:
        return math.ceil(self.current + self.before * window.weight - TOLERANCE)

    def wait(self, limit: int, window: Window) -> int:
        """Whole seconds until the next request fits, if none comes in between. At most two minutes."""
        room = limit - 1 - self.current
        if room >= 0 and self.before:
            seconds = (window.weight - room / self.before) * WINDOW
        elif self.current:
            free_at = max(limit - 1, 0) / self.current
            seconds = window.weight * WINDOW + (1 - min(free_at, 1)) * WINDOW
        else:
            seconds = WINDOW
        return max(1, math.ceil(seconds - TOLERANCE))


@dataclass
class Minute:
    """What this gateway has let through for one account, in this minute and the one before."""

    number: int
    models: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    count: int = 0
    """Of all models together."""
    count_before: int = 0
    places: int = 0
    """Taken in Valkey and not used yet."""
    taking: asyncio.Task[Seen | None] | None = None
    """Requests that come while places are being taken wait for them, instead of asking as well."""
    waiting: int = 0
    """How many do; each needs a place."""

    def turn_to(self, number: int) -> None:
        """To another minute than its own."""
        self.before = self.models if number == self.number + 1 else Counter()
        self.count_before = self.before.total()
        self.models, self.number = Counter(), number
        self.count = self.places = 0

    def let_through(self, model: str) -> None:
        self.models[model] += 1
        self.count += 1

    def wanted(self, limit: int) -> int:
        """How many places to take: for those that wait, and some ahead for who asks often."""
        return max(self.waiting, min(self.count, limit // SHARE, MOST_PLACES))


class LocalCounts:
    """The counts of this gateway alone."""

    def __init__(self) -> None:
        self._minutes: OrderedDict[str, Minute] = OrderedDict()

    def of(self, account_id: str, window: Window) -> Minute:
        minute = self._minutes.get(account_id)
        if minute is None:
            minute = self._minutes[account_id] = Minute(window.minute)
            while len(self._minutes) > KNOWN_ACCOUNTS:
                self._minutes.popitem(last=False)
        else:
            self._minutes.move_to_end(account_id)
        if minute.number != window.minute:
            minute.turn_to(window.minute)
        return minute


class RequestRate:
    def __init__(self, redis_url: str, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self._seconds = limits.valkey_seconds
        self._clock = clock
        self._local = LocalCounts()
        self._misses = MISSES  # it is asked once it has answered in the background
        pool = BlockingConnectionPool.from_url(
            redis_url,
            max_connections=CONNECTIONS,
            timeout=self._seconds,
            socket_timeout=1.0,
            socket_connect_timeout=1.0,
            retry=Retry(NoBackoff(), 0),
        )
        self._valkey: Redis = Redis.from_pool(pool)
        self._take_places = self._valkey.register_script(TAKE)

    @property
    def is_shared(self) -> bool:
        """Whether requests are counted together with those of other gateways."""
        return self._misses < MISSES

    async def admit(self, limit: Limit, model: str) -> int:
        """Count a request, or 429 that says when the next one fits.

        Returns how many are left, as far as this gateway has let them through.
        """
        while True:
            window = Window.at(self._clock())
            minute = self._local.of(limit.account_id, window)
            if minute.places:
                minute.places -= 1
                break
            seen = await self._take(limit, window, minute) if self.is_shared else None
            if seen is None:
                seen = Seen.decide(limit.value, window, minute.count, minute.count_before)
                if seen.places:
                    break
            if not seen.places:
                raise too_many(limit, window, seen, minute)
        minute.let_through(model)
        return max(limit.value - math.ceil(minute.count + minute.count_before * window.weight), 0)

    async def look(self) -> None:
        """See whether Valkey answers, and have a connection to it open."""
        try:
            async with asyncio.timeout(1.0):
                await self._valkey.script_load(TAKE)
        except VALKEY_ERRORS as error:
            self._miss(MISSES, error)
            return
        if not self.is_shared:
            log.info("requests a minute are counted in Valkey")
        self._misses = 0

    async def close(self) -> None:
        await self._valkey.aclose()
        await self._valkey.connection_pool.disconnect()

    async def _take(self, limit: Limit, window: Window, minute: Minute) -> Seen | None:
        """Places for this request and those that wait with it; none of them ends it by leaving."""
        minute.waiting += 1
        try:
            if minute.taking is None:
                minute.taking = asyncio.create_task(self._fill(limit, window, minute))
            return await asyncio.shield(minute.taking)
        finally:
            minute.waiting -= 1

    async def _fill(self, limit: Limit, window: Window, minute: Minute) -> Seen | None:
        try:
            seen = await self._ask(limit, window, minute.wanted(limit.value))
            if seen is not None and minute.number == window.minute:
                minute.places += seen.places
            return seen
        finally:
            minute.taking = None

    async def _ask(self, limit: Limit, window: Window, wanted: int) -> Seen | None:
        """None when Valkey does not answer in time."""
        # The braces keep both keys on one node of a cluster.
        name = f"hearth:requests:{{{limit.account_id}}}:"
        keys = [name + str(window.minute), name + str(window.minute - 1)]
        try:
            async with asyncio.timeout(self._seconds):
                places, current, before = await self._take_places(
                    keys=keys, args=[limit.value, window.weight, wanted]
                )
        except VALKEY_ERRORS as error:
            self._miss(self._misses + 1, error)
            return None
        self._misses = 0
        return Seen(int(places), int(current), int(before))

    def _miss(self, misses: int, error: Exception) -> None:
        if self.is_shared and misses >= MISSES:
            log.warning(
                "requests a minute are counted by each gateway for itself: Valkey does not answer: %s",
                error or type(error).__name__,
            )
        self._misses = misses


def too_many(limit: Limit, window: Window, seen: Seen, minute: Minute) -> GatewayError:
    """The refusal, with the models that the account has asked most through this gateway."""
    models = [name for name, _ in (minute.models + minute.before).most_common()]
    whose = "" if isinstance(limit, KeyLimit) else " to models that others serve"
    used = f"{seen.recent(window):,} were made in the last minute"
    return used_up(limit, f"requests a minute{whose}", used, models, seen.wait(limit.value, window))
