"""Whose job gets the next free place: the rows of the truth table, and what follows from it."""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from controlplane.resources.fine_tuning_jobs.queueing import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    PRIORITY_STEP,
    turn,
)
from workers.reconcile.fine_tuning.queue import (
    NEVER,
    Queue,
    Waiting,
    choose_next,
    plan_places,
    reason_to_wait,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def queue(account: str, *times: float, running: int = 0, most: int = 10, last: float | None = None) -> Queue:
    jobs = tuple(Waiting(uuid.uuid4(), at(minutes)) for minutes in times)
    return Queue(account, jobs, running, most, NEVER if last is None else at(last))


TRUTH_TABLE = [
    # the queues → the account whose turn it is
    ([], None),
    ([queue("a")], None),
    ([queue("a", 5)], "a"),
    # Fewer running jobs come before earlier ones.
    ([queue("a", 1, running=1), queue("b", 5)], "b"),
    # Of equals, who was given a place longest ago; whoever never had one comes before all.
    ([queue("a", 1, last=3), queue("b", 5, last=2)], "b"),
    ([queue("a", 1, last=3), queue("b", 5)], "b"),
    # Of new ones, who waits longest; at last the name, so that it is always one.
    ([queue("a", 5), queue("b", 1)], "b"),
    ([queue("b", 5), queue("a", 5)], "a"),
    # A larger quota is a larger share.
    ([queue("a", 1, running=2, most=10), queue("b", 1, running=1, most=2)], "a"),
    # Who is at the quota waits, alone or not.
    ([queue("a", 1, running=2, most=2)], None),
    ([queue("a", 1, running=2, most=2), queue("b", 9, running=5, most=6)], "b"),
    ([queue("a", 1, most=0)], None),
    # The number of jobs that wait is of no account.
    ([queue("a", *range(1000), running=1), queue("b", 2000)], "b"),
]


@pytest.mark.parametrize(("queues", "account"), TRUTH_TABLE)
def test_the_next_place_goes_to(queues, account):
    chosen = choose_next(queues)
    assert (chosen.account_id if chosen else None) == account
    assert choose_next(queues[::-1]) == chosen


def test_places_go_round_however_many_one_account_has_queued():
    many, few = queue("many", *range(1000)), queue("few", 2000, 2001)
    given, left = plan_places([many, few], 4, NOON)
    assert given == [many.jobs[0].uid, few.jobs[0].uid, many.jobs[1].uid, few.jobs[1].uid]
    assert {rest.account_id: (len(rest.jobs), rest.running) for rest in left} == {
        "many": (998, 2),
        "few": (0, 2),
    }


def test_one_place_goes_round_too():
    queues = [queue("a", *range(50)), queue("b", *range(50)), queue("c", 100)]
    order = []
    for moment in range(7):
        before = {q.account_id: len(q.jobs) for q in queues}
        _, queues = plan_places(queues, 1, at(moment))
        order.append(next(q.account_id for q in queues if len(q.jobs) < before[q.account_id]))
        # Its job is over before the next place is given.
        queues = [Queue(q.account_id, q.jobs, 0, q.most, q.last_place) for q in queues]
    assert order == ["a", "b", "c", "a", "b", "a", "b"]


def test_no_more_is_given_than_is_free_and_allowed():
    for seed in range(50):
        random = Random(seed)
        queues = [
            queue(name, *range(random.randint(0, 9)), running=random.randint(0, 4), most=random.randint(0, 6))
            for name in "abcde"
        ]
        free = random.randint(0, 12)
        given, left = plan_places(queues, free, NOON)
        room = sum(min(len(q.jobs), max(0, q.most - q.running)) for q in queues)
        assert len(given) == len(set(given)) == min(free, room)
        for before, after in zip(queues, left, strict=True):
            assert after.running == before.running or after.running <= before.most


def test_a_priority_is_a_head_start_and_nobody_waits_for_ever():
    low, high = turn(at(0), LOWEST_PRIORITY), turn(at(0), HIGHEST_PRIORITY)
    assert turn(at(0), 0) == at(0)
    assert low - high == (HIGHEST_PRIORITY - LOWEST_PRIORITY) * PRIORITY_STEP == timedelta(hours=20)
    # Urgent jobs come all the time, and the least urgent is overtaken by those of twenty hours only.
    overtaken = Counter(turn(at(60 * hour), HIGHEST_PRIORITY) < low for hour in range(100))
    assert overtaken == {True: 20, False: 80}


def test_why_a_job_waits_is_named():
    assert reason_to_wait(queue("a", 1), 3, 1, "q") == (
        "WAITING_FOR_PLACE",
        "the trainer's place is taken; number 3 in the queue of accounts/a",
    )
    assert reason_to_wait(queue("a", 1), 1, 4, "q") == (
        "WAITING_FOR_PLACE",
        "all 4 places for trainers are taken; number 1 in the queue of accounts/a",
    )
    assert reason_to_wait(queue("a", 1, running=2, most=2), 1, 4, "running-fine-tuning-jobs") == (
        "WAITING_FOR_QUOTA",
        "quota running-fine-tuning-jobs is used up: 2 jobs of the account run; "
        "number 1 in the queue of accounts/a",
    )
    assert "the account may run none" in reason_to_wait(queue("a", 1, most=0), 1, 4, "q")[1]
