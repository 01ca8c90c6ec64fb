"""Usage: one entry of the ledger for each answered request, kept in memory and written in batches."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import bindparam, or_, update
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.db import AsyncDatabase
from controlplane.prices import Prices
from controlplane.resources.ledger.entries import INFERENCE, Entry, write_entries
from controlplane.resources.tables import ApiKeyRow
from gateway.background import DATABASE_ERRORS, first_line
from gateway.limits import Limits

log = logging.getLogger("hearth.gateway")

LARGEST_COUNT = 2**31 - 1
PRICED = ("prompt_tokens", "cached_prompt_tokens", "completion_tokens")
# For ids that are unique and no secrets: asking the system for each costs as much as the rest of an entry.
RANDOM = random.Random()


class Tokens(msgspec.Struct):
    """What one request has taken so far, as the engine reports it.

    A stream reports each choice's count as it grows, and the sum of all at its end; so that a stream that
    was cut off is still charged for what was generated.
    """

    choices_per_prompt: int = 1
    cached: int = 0
    reported: Mapping[str, Any] = {}
    """How long the engine took, in milliseconds, by its own names."""
    _prompts: dict[int, int] = {}
    _choices: dict[int, int] = {}

    @property
    def prompt(self) -> int:
        return sum(self._prompts.values())

    @property
    def completion(self) -> int:
        return sum(self._choices.values())

    def see_choice(self, index: int, usage: Mapping[str, Any]) -> None:
        self._prompts[index // self.choices_per_prompt] = count(usage.get("prompt_tokens"))
        self._choices[index] = count(usage.get("completion_tokens"))

    def seconds(self, name: str) -> float | None:
        """One of the durations that the engine reports."""
        value = self.reported.get(name)
        return round(value / 1000, 6) if isinstance(value, int | float) else None

    def see_total(self, usage: Mapping[str, Any]) -> None:
        details = usage.get("prompt_tokens_details") or {}
        self.cached = count(details.get("cached_tokens"))
        self._prompts = {0: count(usage.get("prompt_tokens"))}
        self._choices = {0: count(usage.get("completion_tokens"))}


def count(value: object) -> int:
    """A count that fits its column, whatever the engine sent."""
    if type(value) is int and 0 <= value <= LARGEST_COUNT:
        return value
    return min(max(value, 0), LARGEST_COUNT) if isinstance(value, int) else 0


class Meter:
    """Holds entries until they are in Postgres. `dropped` counts those that found no room."""

    def __init__(
        self,
        database: AsyncDatabase,
        limits: Limits,
        on_drop: Callable[[int], None] = lambda _: None,
        prices: Prices | None = None,
    ) -> None:
        self.dropped = 0
        self._prices = prices or Prices()
        self._database = database
        self._limits = limits
        self._on_drop = on_drop
        self._rows: deque[tuple[float, dict[str, Any]]] = deque()
        self._batch: list[Entry] = []
        """On its way to Postgres, with uids that it keeps when it is sent again."""
        self._used: dict[int, float] = {}
        """When keys were used, by the numbers of their uids, which are hashed without a call of Python's."""

    def __len__(self) -> int:
        return len(self._rows) + len(self._batch)

    def record(self, used: dict[str, Any]) -> None:
        """Take what one request used: an entry without its uid, time and cost. Never waits.

        The rest is worked out for a batch at a time, which takes half as long as beside each request.
        """
        if len(self) >= self._limits.usage_rows:
            self._drop(1, "there is no room for more")
            return
        self._rows.append((time.time(), used))

    def _next_batch(self) -> list[Entry]:
        size = min(len(self._rows), self._limits.usage_batch)
        return [self._entry(*self._rows.popleft()) for _ in range(size)]

    def _entry(self, moment: float, used: dict[str, Any]) -> Entry:
        return Entry(
            uid=time_ordered_uid(moment),
            create_time=datetime.fromtimestamp(moment, UTC),
            product=INFERENCE,
            cost_nanos=self._cost(used),
            **used,
        )

    def _cost(self, used: Mapping[str, Any]) -> int:
        """What others serve is priced by the token; serving oneself is priced by the replica."""
        if used["owner_id"] == used["account_id"]:
            return 0
        return self._prices.of_tokens(used["model"], *[used.get(kind, 0) for kind in PRICED])

    def note_use(self, key_uid: uuid.UUID) -> None:
        """Remember that a key was used just now."""
        self._used[key_uid.int] = time.time()

    async def flush(self) -> None:
        """Write what is held. When Postgres is away it raises, and everything is kept for the next time."""
        while self._batch or self._rows:
            self._batch = self._batch or self._next_batch()
            try:
                await self._write(_insert_entries, self._batch)
            except (DataError, IntegrityError):
                await self._write_singly(self._batch)
            self._batch = []
        if self._used:
            used, self._used = self._used, {}
            try:
                await self._write(_touch_keys, [_use(number, used[number]) for number in sorted(used)])
            except DATABASE_ERRORS:
                self._used = used | self._used
                raise

    async def _write_singly(self, batch: list[Entry]) -> None:
        """An entry that Postgres will never take holds up neither those beside it nor those behind it."""
        for entry in batch:
            try:
                await self._write(_insert_entries, [entry])
            except (DataError, IntegrityError) as error:
                self._drop(1, first_line(error))

    async def close(self) -> None:
        """Write what is left, for as long as Postgres answers."""
        try:
            await self.flush()
        except DATABASE_ERRORS as error:
            self._drop(len(self), f"at shutdown: {first_line(error)}")

    async def _write(self, statement: Any, batch: list[Any]) -> None:
        async with asyncio.timeout(self._limits.database_seconds), self._database.session() as session:
            await statement(session, batch)

    def _drop(self, number: int, why: str) -> None:
        if not self.dropped or number > 1:
            log.error("usage rows are being dropped: %s", why)
        self.dropped += number
        self._on_drop(number)


async def _insert_entries(session: AsyncSession, batch: list[Entry]) -> None:
    # A batch whose commit was lost on its way back is sent again: its entries keep their uids.
    await session.run_sync(write_entries, batch)


def _use(number: int, moment: float) -> dict[str, Any]:
    return {"key": uuid.UUID(int=number), "at": datetime.fromtimestamp(moment, UTC)}


def time_ordered_uid(moment: float) -> uuid.UUID:
    """A random uid that begins with the time, as UUIDv7 has it: new rows stand together in the index."""
    ms = int(moment * 1000)
    tail = RANDOM.getrandbits(74)
    return uuid.UUID(int=ms << 80 | 7 << 76 | (tail >> 62) << 64 | 2 << 62 | tail & (1 << 62) - 1)


async def _touch_keys(session: AsyncSession, batch: list[dict[str, Any]]) -> None:
    keys = ApiKeyRow.__table__.c
    statement = (
        update(ApiKeyRow.__table__)  # type: ignore[arg-type]
        .where(keys.uid == bindparam("key"), or_(keys.last_used.is_(None), keys.last_used < bindparam("at")))
        .values(last_used=bindparam("at"))
    )
    connection = await session.connection()
    await connection.execute(statement, batch)
