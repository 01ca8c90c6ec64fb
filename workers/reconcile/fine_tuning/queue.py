"""Whose job gets the next free place for a trainer: a pure function of who waits and who runs.

Accounts take turns, however many jobs one of them has queued: the account comes next of which the smallest
part of its quota runs; of equals, the one that was given a place longest ago. Within an account the order is
`queue_time`, which priorities move; see `controlplane.resources.fine_tuning_jobs.queueing`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Waiting:
    uid: uuid.UUID
    queue_time: datetime


@dataclass(frozen=True)
class Queue:
    """The jobs of one account that wait, the first of them first."""

    account_id: str
    jobs: tuple[Waiting, ...]
    running: int = 0
    """Its jobs that have a place."""
    most: int = 1
    """How many the account's quota allows."""
    last_place: datetime = NEVER
    """When it was last given one."""


def choose_next(queues: Sequence[Queue]) -> Queue | None:
    """The account whose first job gets the next place; None when all that wait are at their quota."""
    may_run = [queue for queue in queues if queue.jobs and queue.running < queue.most]
    return min(may_run, key=_turn, default=None)


def _turn(queue: Queue) -> tuple[float, datetime, datetime, str]:
    return queue.running / queue.most, queue.last_place, queue.jobs[0].queue_time, queue.account_id


def plan_places(queues: Sequence[Queue], free: int, moment: datetime) -> tuple[list[uuid.UUID], list[Queue]]:
    """The jobs that get the free places, in this order, and who waits on."""
    left = {queue.account_id: queue for queue in queues}
    given: list[uuid.UUID] = []
    while len(given) < free and (queue := choose_next(list(left.values()))):
        given.append(queue.jobs[0].uid)
        left[queue.account_id] = replace(
            queue, jobs=queue.jobs[1:], running=queue.running + 1, last_place=moment
        )
    return given, list(left.values())


def reason_to_wait(queue: Queue, number: int, places: int, quota_id: str) -> tuple[str, str]:
    """(reason, message) of the `number`th job of an account's queue, the first being 1."""
    place = f"number {number} in the queue of accounts/{queue.account_id}"
    if queue.running >= queue.most:
        held = f"{queue.running} jobs of the account run" if queue.running else "the account may run none"
        return "WAITING_FOR_QUOTA", f"quota {quota_id} is used up: {held}; {place}"
    taken = "the trainer's place is" if places == 1 else f"all {places} places for trainers are"
    return "WAITING_FOR_PLACE", f"{taken} taken; {place}"
