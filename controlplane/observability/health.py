"""What `/healthz` and `/readyz` say: nothing is missing, or what is, without addresses and passwords.

`/healthz` fails when only a new process helps. `/readyz` fails when the part cannot do its work now, which a
new process would not change.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from controlplane.db import PROJECT_ROOT, AsyncDatabase, Database

Missing = Callable[[], list[str]]
"""Sentences about what is missing; none when all is well. May take some seconds."""

ANSWER_SECONDS = 3.0
"""How long a store or an event loop may take to answer; probes wait for 5 seconds, say."""
NO_DATABASE = "the database does not answer"
NO_SCHEMA = "the database has no schema yet; `hearth migrate` makes it"
OLD_SCHEMA = (
    "the database's schema is {found}, and this program needs {needed}; `hearth migrate` brings it up to date"
)
STUCK_LOOP = "the event loop does not turn"
REVISION = text("SELECT version_num FROM alembic_version")
AWAY = (DBAPIError, PoolTimeout, TimeoutError, OSError)


class Pulse:
    """When something last turned that has to turn all the time. Any thread may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self.has_beaten = False

    def beat(self) -> None:
        self._last = self._clock()
        self.has_beaten = True

    @property
    def age(self) -> float:
        """Seconds; before the first beat, since there was something to beat."""
        return self._clock() - self._last


def verdict(missing: list[str]) -> tuple[int, dict[str, object]]:
    """The status and the body of an answer."""
    return (503, {"status": "unavailable", "missing": missing}) if missing else (200, {"status": "ok"})


def verdict_text(missing: list[str]) -> tuple[int, bytes]:
    status, body = verdict(missing)
    return status, json.dumps(body).encode()


def on_loop(
    loop: asyncio.AbstractEventLoop,
    ask: Callable[[], Awaitable[list[str]]],
    seconds: float = ANSWER_SECONDS + 1,
) -> Missing:
    """The same question, asked from a thread: the loop has to turn to answer it."""

    async def asked() -> list[str]:
        return await ask()

    def missing() -> list[str]:
        answer = asyncio.run_coroutine_threadsafe(asked(), loop)
        try:
            return answer.result(seconds)
        except TimeoutError:
            answer.cancel()
            return [STUCK_LOOP]

    return missing


async def missing_of_database(database: AsyncDatabase) -> list[str]:
    """Whether PostgreSQL answers, with a schema that this program can work with."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS), database.single_statements() as connection:
            return said_of_schema(await connection.scalar(REVISION))
    except ProgrammingError:
        return [NO_SCHEMA]
    except AWAY:
        return [NO_DATABASE]


def missing_of_sync_database(database: Database) -> list[str]:
    try:
        with database.engine.connect() as connection:
            return said_of_schema(revision_within(connection, ANSWER_SECONDS))
    except ProgrammingError:
        return [NO_SCHEMA]
    except AWAY:
        return [NO_DATABASE]


def revision_within(connection: Connection, seconds: float) -> str | None:
    connection.execute(text(f"SET LOCAL statement_timeout = {int(seconds * 1000)}"))
    found: str | None = connection.scalar(REVISION)
    return found


def said_of_schema(revision: str | None) -> list[str]:
    """A newer schema than ours is the next version's, and fit for us while that is rolled out."""
    if revision is None:
        return [NO_SCHEMA]
    known = known_revisions()
    newest = max(known)
    is_old = revision in known and revision != newest
    return [OLD_SCHEMA.format(found=revision, needed=newest)] if is_old else []


@lru_cache(maxsize=1)
def known_revisions() -> frozenset[str]:
    """Migrations are numbered, and their files begin with the number. Those of this program's start."""
    files = (PROJECT_ROOT / "migrations/versions").glob("[0-9]*_*.py")
    return frozenset(file.name.partition("_")[0] for file in files)
