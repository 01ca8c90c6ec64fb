"""The decider's truth table, and what a deployment does over a day of load."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.autoscaling.decider import Decision, Load, Policy, Trend, decide, demand

POLICY = Policy(least=0, most=8, scale_up_window=30, scale_down_window=600, scale_to_zero_window=3600)
QUIET = Load(replica_capacity=10, last_request_at=0)
WATCHED = Trend(watched_since=0)


def busy(requests: float, at: float = 0) -> Load:
    return replace(QUIET, concurrent_requests=requests, last_request_at=at)


# desired before, load, serving since, now -> replicas, reason
TABLE = {
    "a quiet replica stays within its window": (1, QUIET, 0, 3599, 1, ""),
    "a quiet replica goes when the window is over": (1, QUIET, 0, 3600, 0, "idle"),
    "many quiet replicas go at once": (5, QUIET, 0, 3600, 0, "idle"),
    "idle time begins when a replica first serves": (1, QUIET, 100, 3600, 1, ""),
    "a replica that never served is not idle": (1, QUIET, None, 9999, 1, ""),
    "a request in flight is not idle": (1, busy(1), 0, 3600, 1, ""),
    "the last request begins the window anew": (1, replace(QUIET, last_request_at=1000), 0, 4599, 1, ""),
    "nothing known keeps a quiet replica": (1, None, 0, 9999, 1, ""),
    "nothing known keeps zero": (0, None, None, 9999, 0, ""),
    "zero stays zero without a request": (0, QUIET, None, 9999, 0, ""),
    "a waiting request wakes it at once": (0, replace(QUIET, waiting_requests=1), None, 1, 1, "request"),
    "many waiting requests wake one": (0, replace(busy(80), waiting_requests=80), None, 1, 1, "request"),
    "load above the target waits for its window": (1, busy(9), 0, 10, 1, ""),
    "a part of the figures keeps a quiet replica": (1, replace(QUIET, is_whole=False), 0, 9999, 1, ""),
    "a part of the figures is enough to wake": (
        0,
        replace(QUIET, waiting_requests=1, is_whole=False),
        None,
        1,
        1,
        "request",
    ),
    "more than is allowed is cut": (9, QUIET, 0, 10, 8, "limits"),
}


@pytest.mark.parametrize(
    ("before", "load", "serving", "now", "replicas", "reason"), TABLE.values(), ids=TABLE
)
def test_the_truth_table(
    before: int, load: Load | None, serving: float | None, now: float, replicas: int, reason: str
) -> None:
    decision = decide(POLICY, before, WATCHED, load, serving_since=serving, now=now)
    assert (decision.replicas, decision.reason) == (replicas, reason)


DEMAND = {
    "no load asks for none": (POLICY, QUIET, 0),
    "the default target is a fraction of what a replica takes": (POLICY, busy(8), 1),
    "one more request is one more replica": (POLICY, busy(8.1), 2),
    "rounding is not load": (replace(POLICY, load_targets={"default": 0.1}), busy(3), 3),
    "of several targets the largest demand wins": (
        replace(POLICY, load_targets={"concurrent_requests": 10, "requests_per_second": 2}),
        replace(QUIET, concurrent_requests=10, requests_per_second=9),
        5,
    ),
    "tokens generated": (
        replace(POLICY, load_targets={"tokens_generated_per_second": 100}),
        replace(QUIET, tokens_generated_per_second=250),
        3,
    ),
    "prompt tokens": (
        replace(POLICY, load_targets={"prompt_tokens_per_second": 1000}),
        replace(QUIET, prompt_tokens_per_second=1000),
        1,
    ),
}


@pytest.mark.parametrize(("policy", "load", "replicas"), DEMAND.values(), ids=DEMAND)
def test_demand(policy: Policy, load: Load, replicas: int) -> None:
    assert demand(policy, load) == replicas


class Deployment:
    """A deployment whose replicas serve as soon as they are decided, looked at every 10 seconds."""

    def __init__(self, policy: Policy, replicas: int) -> None:
        self.policy, self.replicas, self.trend, self.now = policy, replicas, WATCHED, 0.0
        self.changes: list[tuple[float, int]] = []

    def see(self, until: float, load: Callable[[float], Load | None]) -> None:
        while self.now < until:
            self.now += 10
            seen = load(self.now)
            decision = decide(self.policy, self.replicas, self.trend, seen, serving_since=0, now=self.now)
            self._apply(decision)

    def _apply(self, decision: Decision) -> None:
        if decision.replicas != self.replicas:
            self.changes.append((self.now, decision.replicas))
        self.replicas, self.trend = decision.replicas, decision.trend


def test_lasting_load_grows_it_after_the_window() -> None:
    deployment = Deployment(POLICY, 1)
    deployment.see(100, lambda now: busy(32, now))
    assert deployment.changes == [(40, 4)]  # seen first at 10


def test_a_peak_shorter_than_the_window_changes_nothing() -> None:
    deployment = Deployment(POLICY, 1)
    deployment.see(30, lambda now: busy(80, now))
    deployment.see(300, lambda now: busy(4, now))
    assert deployment.changes == []


def test_it_grows_to_the_least_that_was_wanted_in_the_window() -> None:
    deployment = Deployment(POLICY, 1)
    deployment.see(20, lambda now: busy(64, now))
    deployment.see(60, lambda now: busy(16, now))
    assert deployment.changes == [(40, 2)]


def test_it_shrinks_to_the_most_that_was_wanted_in_the_window() -> None:
    deployment = Deployment(POLICY, 8)
    deployment.see(300, lambda now: busy(8, now))
    deployment.see(310, lambda now: busy(24, now))
    deployment.see(700, lambda now: busy(8, now))
    assert deployment.changes == [(610, 3)]


def test_a_short_lull_takes_nothing_away() -> None:
    deployment = Deployment(POLICY, 4)
    deployment.see(590, lambda now: busy(8, now))
    deployment.see(600, lambda now: busy(32, now))
    deployment.see(1100, lambda now: busy(8, now))
    assert deployment.changes == []


def test_without_figures_nothing_shrinks_and_the_window_begins_anew() -> None:
    deployment = Deployment(POLICY, 4)
    deployment.see(590, lambda now: busy(8, now))
    deployment.see(5000, lambda _now: None)
    deployment.see(5500, lambda now: busy(8, now))
    assert deployment.changes == []
    deployment.see(5700, lambda now: busy(8, now))
    assert deployment.changes == [(5610, 1)]


def test_with_a_part_of_the_figures_it_grows_and_does_not_shrink() -> None:
    deployment = Deployment(POLICY, 2)
    deployment.see(2000, lambda now: replace(busy(1, now), is_whole=False))
    deployment.see(2100, lambda now: replace(busy(32, now), is_whole=False))
    assert deployment.changes == [(2040, 4)]


def test_without_figures_the_idle_window_begins_anew() -> None:
    deployment = Deployment(POLICY, 1)
    deployment.see(3000, lambda _now: QUIET)
    deployment.see(3010, lambda _now: None)
    deployment.see(6000, lambda _now: QUIET)
    assert deployment.changes == []
    deployment.see(6700, lambda _now: QUIET)
    assert deployment.changes == [(6620, 0)]


def test_a_deployment_with_a_floor_never_goes_to_zero() -> None:
    deployment = Deployment(replace(POLICY, least=2), 4)
    deployment.see(90_000, lambda _now: QUIET)
    assert deployment.changes == [(610, 2)]


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 200)), min_size=1, max_size=200),
    st.integers(0, 3),
    st.integers(0, 6),
)
def test_whatever_the_load_it_stays_within_its_limits(
    loads: list[int | None], least: int, extra: int
) -> None:
    policy = replace(POLICY, least=least, most=least + extra, scale_to_zero_window=300)
    deployment = Deployment(policy, least)
    for requests in loads:
        deployment.see(deployment.now + 10, lambda now, n=requests: None if n is None else busy(n, now))
        assert least <= deployment.replicas <= least + extra


@given(st.lists(st.integers(0, 200), min_size=1, max_size=60))
def test_a_gap_never_ends_in_fewer_replicas(loads: Iterable[int]) -> None:
    deployment = Deployment(POLICY, 5)
    for requests in loads:
        deployment.see(deployment.now + 10, lambda now, n=requests: busy(n, now))
    before = deployment.replicas
    deployment.see(deployment.now + 20_000, lambda _now: None)
    assert deployment.replicas == before
