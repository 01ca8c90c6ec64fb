"""Whether a worker or beat lives and can do its work."""

from __future__ import annotations

from collections.abc import Callable

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from controlplane.db import Database
from controlplane.observability.health import ANSWER_SECONDS, Pulse, missing_of_sync_database

STUCK_SECONDS = 90.0
"""Reconnecting to the broker takes up to half a minute between two tries, and the loop stands meanwhile."""
FRESH_SECONDS = 10.0
NO_BROKER = "the broker does not answer"


def broker(redis_url: str) -> Redis:
    return Redis.from_url(
        redis_url,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def broker_answers(valkey: Redis) -> bool:
    try:
        return bool(valkey.ping())
    except (RedisError, OSError):
        return False


class Turning:
    """A loop of Celery's that has to turn: the worker's, which takes tasks, or beat's, which sends them."""

    def __init__(self, name: str, pulse: Pulse, answers: Callable[[], bool]) -> None:
        """`answers` says whether the broker does."""
        self._name = name
        self._pulse = pulse
        self._answers = answers

    def missing_for_life(self) -> list[str]:
        """A loop that waits for a broker that is away is alive: a new process would wait as well."""
        if self._pulse.age < STUCK_SECONDS or not self._answers():
            return []
        return [f"{self._name} has not turned for {self._pulse.age:.0f} s"]


class WorkerHealth(Turning):
    def __init__(self, pulse: Pulse, answers: Callable[[], bool], database: Database) -> None:
        super().__init__("the loop that takes tasks", pulse, answers)
        self._database = database

    def missing_for_work(self) -> list[str]:
        missing = missing_of_sync_database(self._database)
        if not self._answers():
            missing.append(NO_BROKER)
        if not self._pulse.has_beaten or self._pulse.age > FRESH_SECONDS:
            missing.append("no tasks are being taken")
        return missing


class BeatHealth(Turning):
    def __init__(self, pulse: Pulse, answers: Callable[[], bool], sent: Pulse) -> None:
        """`sent` beats with each task that the broker has taken."""
        super().__init__("the schedule", pulse, answers)
        self._sent = sent

    def missing_for_work(self) -> list[str]:
        missing = [] if self._answers() else [NO_BROKER]
        if not self._sent.has_beaten or self._sent.age > FRESH_SECONDS:
            missing.append("no sweep has been sent lately")
        return missing
