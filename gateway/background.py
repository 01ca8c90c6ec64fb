"""Work that goes on beside the requests: repeated, surviving a Postgres that is away, and never silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

log = logging.getLogger("hearth.gateway")

DATABASE_ERRORS = (DBAPIError, PoolTimeout, TimeoutError, OSError)
"""What a Postgres that is away, starting, overloaded, read-only or not migrated yet looks like."""


class Background:
    """The gateway's repeated work. `failed` names what has ended by a fault of its own."""

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def repeat(self, name: str, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        """Run `action` now and then every `seconds`. Losing Postgres is logged once, when it happens."""
        task = asyncio.create_task(self._loop(name, seconds, action), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _loop(self, name: str, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        away = False
        while True:
            try:
                await action()
                if away:
                    log.info("%s: the database answers again", name)
                away = False
            except DATABASE_ERRORS as error:
                if not away:
                    log.warning("%s: the database does not answer: %s", name, first_line(error))
                away = True
            await asyncio.sleep(seconds)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed.add(task.get_name())
            log.critical("%s has ended", task.get_name(), exc_info=error)


def first_line(error: BaseException) -> str:
    """What went wrong in one line, without the statement and its values."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return (str(cause) or type(cause).__name__).splitlines()[0]
