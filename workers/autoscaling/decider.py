"""How many replicas a deployment should have. Pure: what was seen and the time go in, a number comes out.

The windows are those of the API: load has to stay above what the replicas are for during the whole
scale-up window before there are more of them, and below it during the whole scale-down window before there
are fewer. What they change to is the least (the most) that was wanted meanwhile, so that a short peak adds
nothing and a short lull takes nothing away. This is the stabilization of Kubernetes' HorizontalPodAutoscaler,
kept as two moments and two numbers instead of a history.

Not knowing is not the same as no load: without figures, or with only a part of them, nothing shrinks, and
the windows that lead downwards begin anew when all of them come back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

DEFAULT_TARGETS: Mapping[str, float] = {"default": 0.8}


@dataclass(frozen=True)
class Policy:
    """What the owner allows. Windows in seconds; targets are the load that one replica is meant for."""

    least: int = 0
    most: int = 1
    scale_up_window: float = 30.0
    scale_down_window: float = 600.0
    scale_to_zero_window: float = 3600.0
    load_targets: Mapping[str, float] = field(default_factory=lambda: DEFAULT_TARGETS)


@dataclass(frozen=True)
class Load:
    """The load of a deployment, added up over all gateways."""

    concurrent_requests: float = 0.0
    """Being answered, or waiting for a replica."""
    waiting_requests: int = 0
    """Of those, the ones that wait because no replica is ready."""
    requests_per_second: float = 0.0
    tokens_generated_per_second: float = 0.0
    prompt_tokens_per_second: float = 0.0
    last_request_at: float | None = None
    replica_capacity: float = 1.0
    """Requests that one replica answers at a time; the target `default` is a fraction of it."""
    is_whole: bool = True
    """False when some gateway is not heard of: the true load is this or more."""


@dataclass(frozen=True)
class Trend:
    """What the decider remembers from one look to the next. Moments in seconds, None when it is not so."""

    above_since: float | None = None
    above_least: int = 0
    below_since: float | None = None
    below_most: int = 0
    watched_since: float | None = None
    """Since when figures have come without a gap."""


@dataclass(frozen=True)
class Decision:
    replicas: int
    reason: str
    """Empty when nothing changes."""
    trend: Trend


def decide(
    policy: Policy,
    desired: int,
    trend: Trend,
    load: Load | None,
    *,
    serving_since: float | None,
    now: float,
) -> Decision:
    """The number of replicas from now on.

    `desired` is what was decided before; `load` is None when nothing is known of it; `serving_since` is when
    a replica first became ready after there was none, None when none has yet.
    """
    trend = _watched_on(trend, load, now)
    if not policy.least <= desired <= policy.most:
        within = min(max(desired, policy.least), policy.most)
        return Decision(within, "limits", Trend(watched_since=trend.watched_since))
    if load is None:
        return Decision(desired, "", trend)
    if desired == 0:
        wakes = load.waiting_requests > 0 and policy.most > 0
        return (
            Decision(1, "request", Trend(watched_since=trend.watched_since))
            if wakes
            else Decision(0, "", trend)
        )
    if _is_idle(policy, load, trend, serving_since, now):
        return Decision(0, "idle", Trend(watched_since=trend.watched_since))
    wanted = min(max(demand(policy, load), policy.least, 1), policy.most)
    if not load.is_whole:
        wanted = max(wanted, desired)
    return _after_windows(policy, desired, _watched(trend, desired, wanted, now), now)


def demand(policy: Policy, load: Load) -> int:
    """The replicas that the load is for; of several targets the one that asks for most decides."""
    measured = {
        "default": load.concurrent_requests / load.replica_capacity,
        "concurrent_requests": load.concurrent_requests,
        "requests_per_second": load.requests_per_second,
        "tokens_generated_per_second": load.tokens_generated_per_second,
        "prompt_tokens_per_second": load.prompt_tokens_per_second,
    }
    # A hair's breadth over a whole number is rounding, not load.
    asked = (measured[name] / target for name, target in policy.load_targets.items())
    return max((math.ceil(replicas - 1e-9) for replicas in asked), default=0)


def _watched_on(trend: Trend, load: Load | None, now: float) -> Trend:
    """A gap in the figures ends what leads downwards."""
    if load is None or not load.is_whole:
        return replace(trend, below_since=None, below_most=0, watched_since=None)
    return trend if trend.watched_since is not None else replace(trend, watched_since=now)


def _is_idle(policy: Policy, load: Load, trend: Trend, serving_since: float | None, now: float) -> bool:
    """Whether nobody has asked for the whole window; it begins at the first ready replica at the earliest."""
    if policy.least > 0 or load.concurrent_requests > 0 or serving_since is None:
        return False
    if trend.watched_since is None:
        return False
    moments = (load.last_request_at, serving_since, trend.watched_since)
    return now - max(moment for moment in moments if moment is not None) >= policy.scale_to_zero_window


def _watched(trend: Trend, desired: int, wanted: int, now: float) -> Trend:
    """The trend with one more look in it."""
    base = Trend(watched_since=trend.watched_since)
    if wanted > desired:
        if trend.above_since is None:
            return replace(base, above_since=now, above_least=wanted)
        least = min(trend.above_least, wanted)
        return replace(base, above_since=trend.above_since, above_least=least)
    if wanted < desired:
        if trend.below_since is None:
            return replace(base, below_since=now, below_most=wanted)
        most = max(trend.below_most, wanted)
        return replace(base, below_since=trend.below_since, below_most=most)
    return base


def _after_windows(policy: Policy, desired: int, trend: Trend, now: float) -> Decision:
    fresh = Trend(watched_since=trend.watched_since)
    if trend.above_since is not None and now - trend.above_since >= policy.scale_up_window:
        return Decision(trend.above_least, "load", fresh)
    if trend.below_since is not None and now - trend.below_since >= policy.scale_down_window:
        return Decision(trend.below_most, "load", fresh)
    return Decision(desired, "", trend)
