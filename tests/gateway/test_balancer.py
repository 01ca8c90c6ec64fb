"""The choice of a replica: pure, and told the time."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from gateway.balancer import Balancer, choose_target
from gateway.snapshot import Target

TARGETS = [Target(uuid.UUID(int=number), f"http://engine:{number}", "base") for number in range(3)]
FIRST, SECOND, THIRD = TARGETS


def load(*counts: int) -> dict[uuid.UUID, int]:
    return {target.replica_uid: count for target, count in zip(TARGETS, counts, strict=True)}


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
    assert balancer.in_flight[FIRST.replica_uid] == 2
    assert balancer.choose(TARGETS) is not FIRST
    first()
    assert balancer.in_flight[FIRST.replica_uid] == 1
    second()
    assert not balancer.in_flight


def test_a_request_tries_the_same_replica_again_only_when_there_is_no_other():
    balancer = Balancer(avoid_seconds=2)
    assert balancer.choose([FIRST, SECOND], failed={FIRST.replica_uid}) is SECOND
    assert balancer.choose([FIRST], failed={FIRST.replica_uid}) is FIRST
