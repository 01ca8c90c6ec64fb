"""Which replica takes a request: the one that is likely to know its beginning, unless that is busy.

Two things make an answer cheaper on one replica than on another: an addon that is loaded there, and a prompt
that begins as an earlier one did. So requests with the same affinity go to the same replica, by rendezvous
hashing: each replica that comes or goes moves only its own share. A bound on the load (Mirrokni et al.,
"Consistent Hashing with Bounded Loads", 2018) passes replicas over that have more than their share, in the
order of the same hash, so that what one replica cannot take has a second home. Requests without an affinity
go where the least of this gateway's requests are in flight.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

from gateway.snapshot import Target

SHARE = 1.25
"""So much of an equal share of all requests one replica may have and still be given more by affinity."""
FEW = 4
"""So many an engine answers as fast as one: no reason to send them elsewhere."""


def choose_target(
    targets: Sequence[Target],
    in_flight: Mapping[int, int],
    avoided: Collection[uuid.UUID],
    turn: int,
    affinity: str | None = None,
) -> Target:
    """The home of `affinity` that is within the bound, or else the least loaded.

    Those that are avoided are only chosen when all are. `turn` decides between equals, so that counting it up
    rotates among them. `targets` must not be empty. `in_flight` is by the numbers of the replicas' uids: uids
    themselves are hashed by a call of Python's.
    """
    wanted = [target for target in targets if target.replica_uid not in avoided] or targets
    if affinity is not None:
        return _home(wanted, in_flight, affinity)
    loads = [in_flight.get(target.replica_uid.int, 0) for target in wanted]
    least = min(loads)
    equals = [target for target, load in zip(wanted, loads, strict=True) if load == least]
    return equals[turn % len(equals)]


def load_bound(total: int, replicas: int) -> int:
    """How many requests a replica may have in flight, one more than there are now coming in."""
    return max(FEW, math.ceil(SHARE * (total + 1) / replicas))


def _home(targets: Sequence[Target], in_flight: Mapping[int, int], affinity: str) -> Target:
    loads = [in_flight.get(target.replica_uid.int, 0) for target in targets]
    bound = load_bound(sum(loads), len(targets))
    # The bound is more than the average, so that at least one is below it.
    free = [target for target, load in zip(targets, loads, strict=True) if load < bound]
    return max(free, key=lambda target: _weight(affinity, target.replica_uid))


@lru_cache(maxsize=65_536)
def _weight(affinity: str, replica: uuid.UUID) -> bytes:
    return blake2b(affinity.encode(), key=replica.bytes, digest_size=8).digest()


class Balancer:
    """Counts what is in flight and remembers which replicas just refused a connection."""

    def __init__(self, avoid_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.in_flight: dict[int, int] = {}
        """By the number of the replica's uid."""
        self._avoided_until: dict[uuid.UUID, float] = {}
        self._avoid_seconds = avoid_seconds
        self._clock = clock
        self._turn = 0

    def choose(
        self, targets: Sequence[Target], failed: Collection[uuid.UUID] = (), affinity: str | None = None
    ) -> Target:
        """A target for a new request. `failed` are the replicas that this request has already tried."""
        if len(targets) == 1:
            return targets[0]
        self._turn += 1
        untried = [target for target in targets if target.replica_uid not in failed]
        return choose_target(untried or targets, self.in_flight, self._avoided(), self._turn, affinity)

    def take(self, target: Target) -> Callable[[], None]:
        """Count the target as busy until what is returned is called."""
        number, in_flight = target.replica_uid.int, self.in_flight
        in_flight[number] = in_flight.get(number, 0) + 1

        def release() -> None:
            left = in_flight.pop(number) - 1
            if left:
                in_flight[number] = left

        return release

    def avoid(self, target: Target) -> None:
        """Pass the target's replica over for a moment."""
        self._avoided_until[target.replica_uid] = self._clock() + self._avoid_seconds

    def _avoided(self) -> Collection[uuid.UUID]:
        if not self._avoided_until:
            return ()
        now = self._clock()
        self._avoided_until = {uid: until for uid, until in self._avoided_until.items() if until > now}
        return self._avoided_until.keys()
