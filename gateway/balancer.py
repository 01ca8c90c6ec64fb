"""Which replica takes a request: the one with the least of this gateway's requests in flight."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from gateway.snapshot import Target


def choose_target(
    targets: Sequence[Target],
    in_flight: Mapping[uuid.UUID, int],
    avoided: Collection[uuid.UUID],
    turn: int,
) -> Target:
    """The least loaded target that is not avoided, or the least loaded of all when every one is.

    `turn` decides between equals, so that counting it up rotates among them. `targets` must not be empty.
    """
    wanted = [target for target in targets if target.replica_uid not in avoided] or targets
    least = min(in_flight.get(target.replica_uid, 0) for target in wanted)
    equals = [target for target in wanted if in_flight.get(target.replica_uid, 0) == least]
    return equals[turn % len(equals)]


class Balancer:
    """Counts what is in flight and remembers which replicas just refused a connection."""

    def __init__(self, avoid_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.in_flight: Counter[uuid.UUID] = Counter()
        self._avoided_until: dict[uuid.UUID, float] = {}
        self._avoid_seconds = avoid_seconds
        self._clock = clock
        self._turn = 0

    def choose(self, targets: Sequence[Target], failed: Collection[uuid.UUID] = ()) -> Target:
        """A target for a new request. `failed` are the replicas that this request has already tried."""
        if len(targets) == 1:
            return targets[0]
        self._turn += 1
        untried = [target for target in targets if target.replica_uid not in failed]
        return choose_target(untried or targets, self.in_flight, self._avoided(), self._turn)

    def take(self, target: Target) -> Callable[[], None]:
        """Count the target as busy until what is returned is called."""
        uid = target.replica_uid
        self.in_flight[uid] += 1

        def release() -> None:
            self.in_flight[uid] -= 1
            if not self.in_flight[uid]:
                del self.in_flight[uid]

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
