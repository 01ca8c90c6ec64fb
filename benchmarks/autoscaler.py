"""What the autoscaler's rules cost and save: `python -m benchmarks.autoscaler`.

Traffic is run through the real decider in simulated time, beside a fixed size and beside the published rules
of Knative's KPA and of Kubernetes' HPA with their defaults. A replica answers so many requests at a time,
takes its time to start, and what finds no place waits. The same seed gives the same table.

`--trace FILE` takes recorded traffic instead: one line for each second, the number of requests in it.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workers.autoscaling.decider import Load, Policy, Trend, decide

CAPACITY = 16
"""Requests that a replica answers at a time."""
ANSWER_SECONDS = 4
START_SECONDS = 60
MOST = 8
HOUR, DAY = 3600, 86_400


@dataclass
class Cluster:
    """Replicas, and the requests that they answer or that wait for one."""

    now: int = 0
    starting: deque[int] = field(default_factory=deque)
    """When each replica that was started will be ready."""
    ready: int = 0
    busy: int = 0
    queue: deque[tuple[int, int]] = field(default_factory=deque)
    """(second of arrival, how many)"""
    done_at: Counter[int] = field(default_factory=Counter)
    waits: Counter[int] = field(default_factory=Counter)
    replica_seconds: int = 0
    changes: int = 0
    turns: int = 0
    last_direction: int = 0
    serving_since: int | None = None

    @property
    def size(self) -> int:
        return self.ready + len(self.starting)

    @property
    def waiting(self) -> int:
        return sum(count for _, count in self.queue)

    def step(self, arrivals: int) -> None:
        """One second."""
        self.now += 1
        self.busy -= self.done_at.pop(self.now, 0)
        while self.starting and self.starting[0] <= self.now:
            self.starting.popleft()
            self.ready += 1
        if not self.ready:
            self.serving_since = None
        elif self.serving_since is None:
            self.serving_since = self.now
        if arrivals:
            self.queue.append((self.now, arrivals))
        self._let_in()
        self.replica_seconds += self.size

    def _let_in(self) -> None:
        free = self.ready * CAPACITY - self.busy
        while free > 0 and self.queue:
            arrived, count = self.queue.popleft()
            taken = min(count, free)
            if taken < count:
                self.queue.appendleft((arrived, count - taken))
            free -= taken
            self.busy += taken
            self.waits[self.now - arrived] += taken
            self.done_at[self.now + ANSWER_SECONDS] += taken

    def resize(self, wanted: int) -> None:
        """Towards so many replicas. One that is taken away finishes what it has: nothing is cut off."""
        if wanted == self.size:
            return
        direction = 1 if wanted > self.size else -1
        self.changes += 1
        self.turns += self.last_direction not in (0, direction)
        self.last_direction = direction
        while self.size < wanted:
            self.starting.append(self.now + START_SECONDS)
        while self.size > wanted:
            if self.starting:
                self.starting.pop()
            else:
                self.ready -= 1


Rule = Callable[[Cluster], int | None]
"""The size wanted now; None between looks."""


def fixed(size: int) -> Rule:
    return lambda _cluster: size


@dataclass
class Average:
    """Of concurrency, over the last so many seconds."""

    seconds: int
    seen: deque[int] = field(default_factory=deque)

    def of(self, cluster: Cluster) -> float:
        self.seen.append(cluster.busy + cluster.waiting)
        if len(self.seen) > self.seconds:
            self.seen.popleft()
        return sum(self.seen) / len(self.seen)


def hearth(policy: Policy) -> Rule:
    """The real decider, every 2 s; a request for none wakes one at once, as the gateway does."""
    average, trend, last_request = Average(15), Trend(), [0]

    def rule(cluster: Cluster) -> int | None:
        nonlocal trend
        concurrent = average.of(cluster)
        if cluster.busy or cluster.waiting:
            last_request[0] = cluster.now
        if cluster.now % 2 and (cluster.size or not cluster.waiting):
            return None
        load = Load(
            concurrent_requests=concurrent,
            waiting_requests=0 if cluster.ready else cluster.waiting,
            last_request_at=last_request[0],
            replica_capacity=CAPACITY,
        )
        decision = decide(
            policy, cluster.size, trend, load, serving_since=cluster.serving_since, now=cluster.now
        )
        trend = decision.trend
        return decision.replicas

    return rule


def knative() -> Rule:
    """KPA: 60 s average against 70 % of the capacity; in panic the last 6 s, and then nothing shrinks."""
    stable, panic = Average(60), Average(6)
    panic_until, panic_size = [0], [0]

    def rule(cluster: Cluster) -> int | None:
        target = 0.7 * CAPACITY
        over_stable, over_panic = stable.of(cluster), panic.of(cluster)
        if cluster.now % 2:
            return None
        wanted, urgent = math.ceil(over_stable / target), math.ceil(over_panic / target)
        if urgent >= 2 * max(cluster.ready, 1) or (not cluster.size and cluster.waiting):
            panic_until[0] = cluster.now + 60
        if cluster.now < panic_until[0]:
            panic_size[0] = max(panic_size[0], urgent, wanted, 1)
            return min(panic_size[0], MOST)
        panic_size[0] = 0
        return min(wanted, MOST)

    return rule


def hpa() -> Rule:
    """HPA on utilization: every 15 s, 10 % tolerance, 5 min stabilization downwards, never none."""
    average, recent = Average(15), deque[tuple[int, int]]()

    def rule(cluster: Cluster) -> int | None:
        concurrent = average.of(cluster)
        if cluster.now % 15:
            return None
        size = max(cluster.size, 1)
        ratio = concurrent / (0.8 * CAPACITY * size)
        wanted = size if abs(ratio - 1) <= 0.1 else math.ceil(size * ratio)
        wanted = min(max(wanted, 1), MOST, max(size * 2, size + 4))
        recent.append((cluster.now, wanted))
        while recent[0][0] < cluster.now - 300:
            recent.popleft()
        return max(most for _, most in recent) if wanted < size else wanted

    return rule


def rules() -> dict[str, Rule]:
    return {
        f"fixed at {MOST}": fixed(MOST),
        "hearth, its defaults": hearth(Policy(most=MOST)),
        "hearth, 5 s / 2 min / 5 min": hearth(
            Policy(most=MOST, scale_up_window=5, scale_down_window=120, scale_to_zero_window=300)
        ),
        "Knative's KPA": knative(),
        "Kubernetes' HPA": hpa(),
    }


def office_day(rng: random.Random) -> Iterator[int]:
    """Busy from 8 to 18 with a peak at 11 and 15, nearly nothing at night."""
    for second in range(DAY):
        hour = second / HOUR
        rate = 12 * max(0.0, math.sin((hour - 8) / 10 * math.pi)) if 8 <= hour < 18 else 0.0005
        yield poisson(rng, rate * (1 + 0.5 * math.sin(hour * math.pi / 2)))


def bursts(rng: random.Random) -> Iterator[int]:
    """Two minutes of much every twenty minutes, for six hours."""
    for second in range(6 * HOUR):
        yield poisson(rng, 15.0 if second % 1200 < 120 else 0.2)


def rare(rng: random.Random) -> Iterator[int]:
    """A request every two hours or so, for a day."""
    for _ in range(DAY):
        yield poisson(rng, 1 / 7200)


def steady(rng: random.Random) -> Iterator[int]:
    """Eight requests a second for two hours."""
    for _ in range(2 * HOUR):
        yield poisson(rng, 8.0)


def poisson(rng: random.Random, rate: float) -> int:
    """By Knuth's multiplication of uniforms."""
    limit, product, count = math.exp(-rate), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def run(traffic: Sequence[int], rule: Rule) -> Cluster:
    cluster = Cluster(ready=1)
    for arrivals in traffic:
        cluster.step(arrivals)
        wanted = rule(cluster)
        if wanted is not None:
            cluster.resize(wanted)
    return cluster


def wait_at(waits: Counter[int], share: float) -> int:
    """Seconds that this share of the requests waited at most."""
    left = share * sum(waits.values())
    for seconds in sorted(waits):
        left -= waits[seconds]
        if left <= 0:
            return seconds
    return 0


def report(name: str, traffic: Sequence[int]) -> None:
    print(f"\n{name}: {sum(traffic):,} requests in {len(traffic) / HOUR:.0f} h")
    columns = ("replica-hours", "of fixed", "p50 wait", "p99 wait", "worst", "changes", "turns")
    print("  " + "rule".ljust(28) + "".join(column.rjust(14) for column in columns))
    most = MOST * len(traffic) / HOUR
    for title, rule in rules().items():
        cluster = run(traffic, rule)
        hours = cluster.replica_seconds / HOUR
        waited = (wait_at(cluster.waits, 0.5), wait_at(cluster.waits, 0.99), max(cluster.waits, default=0))
        figures = [f"{hours:.1f}", f"{hours / most:.2f}", *(f"{seconds} s" for seconds in waited)]
        figures += [str(cluster.changes), str(cluster.turns)]
        print("  " + title.ljust(28) + "".join(figure.rjust(14) for figure in figures))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help="recorded traffic")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(
        f"{CAPACITY} requests a replica, {ANSWER_SECONDS} s each, {START_SECONDS} s to start, at most {MOST}"
    )
    if options.trace:
        report(options.trace.name, [int(line) for line in options.trace.read_text().split()])
        return
    for scenario in (office_day, bursts, rare, steady):
        report((scenario.__doc__ or "").strip(), list(scenario(random.Random(options.seed))))


if __name__ == "__main__":
    main()
