"""The choice of a replica: pure, and told the time."""

import uuid
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.affinity import PREFIX, affinity_of
from gateway.balancer import FEW, SHARE, Balancer, choose_target, load_bound
from gateway.dialect import translate_chat, translate_completion
from gateway.snapshot import Target
from tests.gateway.test_activator import ROUTE

TARGETS = [Target(uuid.UUID(int=number), f"http://engine:{number}", "base") for number in range(3)]
FIRST, SECOND, THIRD = TARGETS
NAMES = dict(zip("abc", TARGETS, strict=True))


def load(*counts: int) -> dict[int, int]:
    return {target.replica_uid.int: count for target, count in zip(TARGETS, counts, strict=True)}


def test_the_least_loaded_is_chosen():
    assert choose_target(TARGETS, load(2, 1, 2), (), turn=0) is SECOND


def test_equals_take_turns():
    assert [choose_target(TARGETS, load(0, 1, 0), (), turn) for turn in range(4)] == [
        FIRST,
        THIRD,
        FIRST,
        THIRD,
    ]


def test_an_avoided_one_is_chosen_only_when_all_are():
    avoided = {FIRST.replica_uid}
    assert choose_target(TARGETS, load(0, 5, 6), avoided, turn=0) is SECOND
    everyone = {target.replica_uid for target in TARGETS}
    assert choose_target(TARGETS, load(0, 5, 6), everyone, turn=0) is FIRST


@given(
    st.lists(st.integers(0, 9), min_size=3, max_size=3),
    st.sets(st.integers(0, 2)),
    st.integers(0, 99),
)
def test_nothing_less_loaded_is_passed_over(counts, avoided, turn):
    chosen = choose_target(TARGETS, load(*counts), {TARGETS[i].replica_uid for i in avoided}, turn)
    allowed = [i for i in range(3) if i not in avoided] or range(3)
    assert counts[TARGETS.index(chosen)] == min(counts[i] for i in allowed)


# An affinity whose order of homes is a, c, b.
KEY = next(
    key
    for key in map(str, range(1000))
    if choose_target(TARGETS, {}, (), 0, key) is FIRST
    and choose_target(TARGETS, {}, {FIRST.replica_uid}, 0, key) is THIRD
)
#   in flight    avoided  chosen
AFFINITY = [
    ((0, 0, 0), "", "a"),
    ((FEW - 1, 0, 0), "", "a"),  # few enough to be answered as fast
    ((FEW, 0, 0), "", "c"),
    ((FEW, 0, FEW), "", "b"),
    ((40, 40, 40), "", "a"),  # nobody has more than a share
    ((49, 40, 40), "", "a"),
    ((60, 30, 30), "", "c"),  # the bound is 1.25 of an equal share
    ((60, 0, 60), "", "b"),
    ((0, 0, 0), "a", "c"),
    ((0, 0, 0), "ac", "b"),
    ((0, 0, 0), "abc", "a"),
    ((50, 0, 0), "bc", "a"),  # there is no other
]


@pytest.mark.parametrize(("in_flight", "avoided", "chosen"), AFFINITY)
def test_an_affinity_leads_home_or_to_the_next_home_within_the_bound(in_flight, avoided, chosen):
    passed_over = {NAMES[name].replica_uid for name in avoided}
    for turn in range(3):
        assert choose_target(TARGETS, load(*in_flight), passed_over, turn, KEY) is NAMES[chosen]


@given(st.lists(st.integers(0, 500), min_size=3, max_size=3), st.text(max_size=5))
def test_no_affinity_makes_a_replica_take_more_than_the_bound(counts, affinity):
    chosen = choose_target(TARGETS, load(*counts), (), 0, affinity)
    assert counts[TARGETS.index(chosen)] < load_bound(sum(counts), 3)


def test_many_affinities_are_shared_evenly_and_few_move_when_a_replica_comes_or_goes():
    keys = [str(number) for number in range(3000)]
    before = {key: choose_target(TARGETS, {}, (), 0, key) for key in keys}
    assert all(850 < count < 1150 for count in Counter(before.values()).values())
    after = {key: choose_target(TARGETS[:2], {}, (), 0, key) for key in keys}
    assert all(after[key] is home for key, home in before.items() if home is not THIRD)


@pytest.mark.parametrize(("total", "replicas"), [(0, 2), (7, 2), (100, 3), (1000, 7)])
def test_the_bound_leaves_room_for_one_more_and_no_more_than_the_share(total, replicas):
    bound = load_bound(total, replicas)
    assert bound * replicas > total
    assert bound <= max(FEW, SHARE * (total + 1) / replicas + 1)


BASE, ADDON = ROUTE, replace(ROUTE, is_base=False)
KEEPING = replace(ADDON, deployment=replace(ROUTE.deployment, keeps_sessions=True))
LONG = "You are a patient teacher. " * 100


def chat(text=LONG, more="", **fields):
    messages = [{"role": "system", "content": text}, {"role": "user", "content": more or "hi"}]
    return translate_chat({"model": "m", "messages": messages, **fields}, 4096)


def completion(prompt, **fields):
    return translate_completion({"model": "m", "prompt": prompt, **fields}, 4096)


SAME = [
    (BASE, chat(), chat(more="something else")),
    (BASE, chat(user="ann"), chat("short", user="ann")),
    (BASE, chat(user="ann", prompt_cache_key="k"), chat(user="ben", prompt_cache_key="k")),
    (BASE, completion(LONG), completion(LONG + "and more")),
    (BASE, completion([5] * PREFIX), completion([5] * PREFIX + [6])),
    (BASE, completion([LONG, "a"]), completion([LONG, "b"])),
    (ADDON, chat("one", user="ann"), chat("two", user="ben")),
    (KEEPING, chat("one", user="ann"), chat("two", user="ann")),
    (KEEPING, chat("one"), chat("two")),
]
DIFFERENT = [
    (BASE, chat(), chat("Another beginning. " * 100)),
    (BASE, chat(user="ann"), chat(user="ben")),
    (KEEPING, chat(user="ann"), chat(user="ben")),
    (BASE, chat(prompt_cache_isolation_key="x"), chat(prompt_cache_isolation_key="y")),
]


@pytest.mark.parametrize(("route", "one", "other"), SAME)
def test_what_shares_its_addon_its_session_or_its_beginning_belongs_together(route, one, other):
    assert affinity_of(route, one) == affinity_of(route, other) is not None


@pytest.mark.parametrize(("route", "one", "other"), DIFFERENT)
def test_what_shares_no_cache_does_not(route, one, other):
    assert affinity_of(route, one) != affinity_of(route, other)


@pytest.mark.parametrize("request_", [chat("short"), completion("short"), completion([1, 2])])
def test_a_short_prompt_of_no_session_is_as_well_answered_anywhere(request_):
    assert affinity_of(BASE, request_) is None


def test_a_replica_is_avoided_for_a_moment():
    now = 100.0
    balancer = Balancer(avoid_seconds=2, clock=lambda: now)
    balancer.avoid(FIRST)
    assert {balancer.choose([FIRST, SECOND]) for _ in range(4)} == {SECOND}
    now = 102.5
    assert {balancer.choose([FIRST, SECOND]) for _ in range(4)} == {FIRST, SECOND}


def test_a_target_counts_as_busy_until_it_is_released():
    balancer = Balancer(avoid_seconds=2)
    first, second = balancer.take(FIRST), balancer.take(FIRST)
    assert balancer.in_flight[FIRST.replica_uid.int] == 2
    assert balancer.choose(TARGETS) is not FIRST
    first()
    assert balancer.in_flight[FIRST.replica_uid.int] == 1
    second()
    assert not balancer.in_flight


def test_a_request_tries_the_same_replica_again_only_when_there_is_no_other():
    balancer = Balancer(avoid_seconds=2)
    assert balancer.choose([FIRST, SECOND], failed={FIRST.replica_uid}) is SECOND
    assert balancer.choose([FIRST], failed={FIRST.replica_uid}) is FIRST
    home = balancer.choose([FIRST, SECOND], affinity=KEY)
    assert balancer.choose([FIRST, SECOND], {home.replica_uid}, KEY) is not home
