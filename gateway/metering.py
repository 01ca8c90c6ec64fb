"""Usage: one row for each answered request, kept in memory and written in batches."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, or_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.db import AsyncDatabase
from controlplane.resources.tables import ApiKeyRow, UsageRow
from gateway.background import DATABASE_ERRORS, first_line
from gateway.limits import Limits

log = logging.getLogger("hearth.gateway")

LARGEST_COUNT = 2**31 - 1


@dataclass
class Tokens:
    """What one request has taken so far, as the engine reports it.

    A stream reports each choice's count as it grows, and the sum of all at its end; so that a stream that
    was cut off is still charged for what was generated.
    """

    choices_per_prompt: int = 1
    cached: int = 0
    _prompts: dict[int, int] = field(default_factory=dict)
    _choices: dict[int, int] = field(default_factory=dict)

    @property
    def prompt(self) -> int:
        return sum(self._prompts.values())

    @property
    def completion(self) -> int:
        return sum(self._choices.values())

    def see_choice(self, index: int, usage: Mapping[str, Any]) -> None:
        self._prompts[index // self.choices_per_prompt] = count(usage.get("prompt_tokens"))
        self._choices[index] = count(usage.get("completion_tokens"))

    def see_total(self, usage: Mapping[str, Any]) -> None:
        details = usage.get("prompt_tokens_details") or {}
        self.cached = count(details.get("cached_tokens"))
        self._prompts = {0: count(usage.get("prompt_tokens"))}
        self._choices = {0: count(usage.get("completion_tokens"))}


def count(value: object) -> int:
    """A count that fits its column, whatever the engine sent."""
    return min(max(value, 0), LARGEST_COUNT) if isinstance(value, int) else 0


class Meter:
    """Holds rows until they are in Postgres. `dropped` counts those that found no room."""

    def __init__(
        self, database: AsyncDatabase, limits: Limits, on_drop: Callable[[int], None] = lambda _: None
    ) -> None:
        self.dropped = 0
        self._database = database
        self._limits = limits
        self._on_drop = on_drop
        self._rows: deque[dict[str, Any]] = deque()
        self._used: dict[uuid.UUID, datetime] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, row: dict[str, Any]) -> None:
        """Take one row of `usage`, without its uid and time. Never waits."""
        if len(self._rows) >= self._limits.usage_rows:
            self._drop(1, "there is no room for more")
            return
        self._rows.append({"uid": uuid.uuid4(), "create_time": datetime.now(UTC), **row})

    def note_use(self, key_uid: uuid.UUID) -> None:
        """Remember that a key was used just now."""
        self._used[key_uid] = datetime.now(UTC)

    async def flush(self) -> None:
        """Write what is held. When Postgres is away it raises, and everything is kept for the next time."""
        while self._rows:
            batch = [self._rows[i] for i in range(min(len(self._rows), self._limits.usage_batch))]
            try:
                await self._write(_insert_usage, batch)
            except (DataError, IntegrityError) as error:
                # Rows that Postgres will never take must not hold up those behind them.
                self._drop(len(batch), first_line(error))
            for _ in batch:
                self._rows.popleft()
        if self._used:
            used, self._used = self._used, {}
            try:
                await self._write(_touch_keys, [{"key": uid, "at": used[uid]} for uid in sorted(used)])
            except DATABASE_ERRORS:
                self._used = used | self._used
                raise

    async def close(self) -> None:
        """Write what is left, for as long as Postgres answers."""
        try:
            await self.flush()
        except DATABASE_ERRORS as error:
            self._drop(len(self._rows), f"at shutdown: {first_line(error)}")

    async def _write(self, statement: Any, batch: list[dict[str, Any]]) -> None:
        async with asyncio.timeout(self._limits.database_seconds), self._database.session() as session:
            await statement(session, batch)

    def _drop(self, number: int, why: str) -> None:
        if not self.dropped or number > 1:
            log.error("usage rows are being dropped: %s", why)
        self.dropped += number
        self._on_drop(number)


async def _insert_usage(session: AsyncSession, batch: list[dict[str, Any]]) -> None:
    # A batch whose commit was lost on its way back is sent again: its rows keep their uids.
    await session.execute(insert(UsageRow).on_conflict_do_nothing(index_elements=["uid"]), batch)


async def _touch_keys(session: AsyncSession, batch: list[dict[str, Any]]) -> None:
    keys = ApiKeyRow.__table__.c
    statement = (
        update(ApiKeyRow.__table__)  # type: ignore[arg-type]
        .where(keys.uid == bindparam("key"), or_(keys.last_used.is_(None), keys.last_used < bindparam("at")))
        .values(last_used=bindparam("at"))
    )
    connection = await session.connection()
    await connection.execute(statement, batch)
