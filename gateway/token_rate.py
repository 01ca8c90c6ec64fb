"""Tokens a minute from what others serve: counted by every gateway for itself, and together in Valkey.

How many tokens an answer takes is known at its end, from the engine. So what is over the limit is what has
come: a request is let through while the tokens of the last sixty seconds are below the limit, and whatever
goes beyond it is waited for by the requests after it. No request asks Valkey. Each gateway tells it once in a
while what has been added, of many accounts at a time, and reads what all of them have; what one has not told
yet the others do not see.
While Valkey is away each gateway goes by what it has seen itself, and tells the rest of the minute later.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from controlplane.resources.quotas.limits import Limit
from gateway.errors import GatewayError
from gateway.key_limits import KeyLimit, used_up
from gateway.request_rate import KNOWN_ACCOUNTS, VALKEY_ERRORS, WINDOW, Seen, Window

KINDS = ("prompt", "generated")
VALKEY_SECONDS = 1.0
TOLD_AT_ONCE = 200
"""Tallies whose counts are told together: a way to Valkey takes longer than it takes over many of them."""
ADDED = """
local sums = {}
for i, key in ipairs(KEYS) do
    sums[i] = redis.call('INCRBY', key, ARGV[i])
    redis.call('EXPIRE', key, 180)
end
return sums
"""


@dataclass
class Tally:
    """One account's tokens of one kind, in this minute and the one before."""

    number: int = 0
    current: int = 0
    before: int = 0
    untold: int = 0
    """Of this minute, and not in Valkey yet."""
    untold_before: int = 0
    """Of the minute before."""

    def turn_to(self, number: int) -> None:
        """To another minute than its own."""
        follows = number == self.number + 1
        self.before, self.untold_before = (self.current, self.untold) if follows else (0, 0)
        self.number, self.current, self.untold = number, 0, 0

    def learn(self, number: int, told: Sequence[int], current: int, before: int) -> None:
        """What all had counted in minute `number` and the one before, with what we `told` of both."""
        if self.number != number:
            # The minute has turned since: what was told of it is not to be told again.
            self.untold_before -= told[0] if self.number == number + 1 else 0
            return
        self.untold -= told[0]
        self.untold_before -= told[1]
        self.current = max(current, 0) + self.untold
        self.before = max(before, self.before)


Tallies = defaultdict[str, Tally]
"""Of one account, by kind."""


class TokenRate:
    def __init__(self, redis_url: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._accounts: OrderedDict[str, Tallies] = OrderedDict()
        self._valkey: Redis = Redis.from_url(
            redis_url,
            socket_timeout=VALKEY_SECONDS,
            socket_connect_timeout=VALKEY_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._added = self._valkey.register_script(ADDED)

    def admit(self, limits: Mapping[str, Limit]) -> dict[str, int]:
        """What is left of each kind, or 429 that says when it is enough. The limits are of one account."""
        minute, elapsed = divmod(self._clock(), WINDOW)
        weight, number = 1 - elapsed / WINDOW, int(minute)
        left: dict[str, int] = {}
        tallies: Tallies | None = None
        for kind, limit in limits.items():
            tallies = tallies or self._of(limit.account_id)
            tally = tallies[kind]
            if tally.number != number:
                tally.turn_to(number)
            recent = math.ceil(tally.current + tally.before * weight)
            if recent >= limit.value:
                raise too_many_tokens(limit, kind, tally, Window(number, weight), recent)
            left[kind] = limit.value - recent
        return left

    def add(self, account_id: str, prompt: int, generated: int) -> None:
        """Count what a request has taken."""
        self.count(account_id, zip(KINDS, (prompt, generated), strict=True))

    def count(self, name: str, taken: Iterable[tuple[str, int]]) -> None:
        """Count tokens of some kinds under a name, that of an account or of something else."""
        number = int(self._clock() // WINDOW)
        tallies = self._of(name)
        for kind, count in taken:
            tally = tallies[kind]
            if tally.number != number:
                tally.turn_to(number)
            tally.current += count
            tally.untold += count

    async def tell(self) -> None:
        """Tell Valkey what has been added since the last time, and learn what others have."""
        named = (
            # The braces keep both keys of a tally on one node of a cluster.
            (f"hearth:tokens:{{{account_id}}}:{kind}:", tally)
            for account_id, tallies in list(self._accounts.items())
            for kind, tally in list(tallies.items())
        )
        while batch := list(islice(named, TOLD_AT_ONCE)):
            number = int(self._clock() // WINDOW)  # anew each time: telling takes a while
            await self._tell([each for each in batch if each[1].number >= number - 1], number)

    async def _tell(self, named: Sequence[tuple[str, Tally]], number: int) -> None:
        asked, told = [], []
        for name, tally in named:
            if tally.number != number:
                tally.turn_to(number)
            asked.append([name + str(number), name + str(number - 1)])
            told.append([tally.untold, tally.untold_before])
        known = await self._ask(asked, told) if asked else []
        for (_, tally), counts, (current, before) in zip(named, told, known, strict=True):
            tally.learn(number, counts, int(current), int(before))

    async def _ask(
        self, keys: Sequence[Sequence[str]], counts: Sequence[Sequence[int]]
    ) -> list[tuple[int, int]]:
        """Add the counts to those of all gateways; what there is now. On one way there and back."""
        async with self._valkey.pipeline(transaction=False) as pipeline:
            for names, added in zip(keys, counts, strict=True):
                await self._added(keys=names, args=added, client=pipeline)
            found: list[tuple[int, int]] = await pipeline.execute()
        return found

    async def look(self) -> None:
        """As `tell`, where Valkey answers."""
        try:
            await self.tell()
        except VALKEY_ERRORS:
            return  # said by who counts the requests; what is untold stays so

    async def close(self) -> None:
        await self._valkey.aclose()

    def _of(self, account_id: str) -> Tallies:
        tallies = self._accounts.get(account_id)
        if tallies is None:
            tallies = self._accounts[account_id] = defaultdict(Tally)
            while len(self._accounts) > KNOWN_ACCOUNTS:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(account_id)
        return tallies


def too_many_tokens(limit: Limit, kind: str, tally: Tally, window: Window, recent: int) -> GatewayError:
    own = isinstance(limit, KeyLimit)
    what = "tokens a minute" if own else f"{kind} tokens a minute of models that others serve"
    wait = Seen(0, tally.current, tally.before).wait(limit.value, window)
    return used_up(limit, what, f"{recent:,} came in the last minute", [], wait)
