"""Stored responses: written beside the requests, in batches, and read when somebody asks for one.

An account sees its own only. What has not been written yet is found here; what another gateway has yet to
write is looked for twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from typing import Any

import msgspec
from sqlalchemy import Text, cast, delete, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from controlplane.db import AsyncDatabase
from controlplane.resources.tables import ResponseRow
from gateway.background import DATABASE_ERRORS, first_line
from gateway.errors import GatewayError, invalid, unavailable
from gateway.limits import Limits
from gateway.responses.quota import StoredUsage

log = logging.getLogger("hearth.gateway")

FORGOTTEN_AT_ONCE = 1000


@dataclass(frozen=True)
class Stored:
    """A response, and the items that were asked with it."""

    id: str
    account_id: str
    previous_id: str | None
    input: list[Any]
    body: dict[str, Any]
    create_time: datetime
    size: int = 0
    """Bytes, as JSON."""


class ResponseStore:
    def __init__(self, database: AsyncDatabase, limits: Limits, days: int) -> None:
        self._database = database
        self._limits = limits
        self._kept = timedelta(days=days)
        self._waiting: OrderedDict[str, Stored] = OrderedDict()
        self._bytes = 0
        self._writing = asyncio.Lock()
        self.usage = StoredUsage(database, limits, self._writing, self._waiting_of)

    def __len__(self) -> int:
        return len(self._waiting)

    def require_room(self) -> None:
        """503 while so much waits for Postgres that nothing more is taken."""
        if self._bytes >= self._limits.responses_bytes:
            raise unavailable(
                "UNAVAILABLE", "responses cannot be stored at the moment; try again, or send 'store': false"
            )

    def put(
        self, response_id: str, account_id: str, previous_id: str | None, items: list[Any], body: Any
    ) -> None:
        """Take a response. Never waits."""
        size = len(msgspec.json.encode((items, body)))
        stored = Stored(response_id, account_id, previous_id, items, body, datetime.now(UTC), size)
        self._waiting[response_id] = stored
        self._bytes += size
        self.usage.add(account_id, 1, size)

    async def get(self, account_id: str, response_id: str) -> Stored:
        """404 when the account has no such response."""
        if "\0" in response_id:  # which Postgres cannot be asked for
            raise no_response(response_id)
        found = self._held(account_id, response_id)
        if found is not None:
            return found
        query = select(ResponseRow).where(ResponseRow.id == response_id, ResponseRow.account_id == account_id)
        for wait in (self._limits.store_seconds * 3, 0):
            async with self._session() as session:
                row = await session.scalar(query)
            if row is not None:
                return _stored(row)
            # Another gateway may have answered a moment ago.
            await asyncio.sleep(wait)
        raise no_response(response_id)

    async def chain(self, account_id: str, response_id: str) -> tuple[list[Stored], int]:
        """The response and all that it goes on from, the first one first; and their bytes as JSON."""
        found = [await self.get(account_id, response_id)]
        while (previous := found[-1].previous_id) is not None and len(found) <= self._limits.response_chain:
            held = self._held(account_id, previous)
            if held is None:
                found += await self._earlier(account_id, previous)
                break
            found.append(held)
        if found[-1].previous_id is not None:
            raise invalid(
                f"'previous_response_id': {response_id} goes on from more than "
                f"{self._limits.response_chain} responses, or from one that is not stored any more",
                "previous_response_id",
            )
        size = sum(len(msgspec.json.encode((each.input, each.body["output"]))) for each in found)
        if size > self._limits.response_chain_bytes:
            raise invalid(
                f"'previous_response_id': the conversation is larger than "
                f"{self._limits.response_chain_bytes} bytes",
                "previous_response_id",
            )
        return found[::-1], size

    async def page(
        self, account_id: str, limit: int, after: str | None, before: str | None
    ) -> tuple[list[dict[str, Any]], bool]:
        """The bodies, the newest first, and whether there are more in the direction that was asked for.

        There may be fewer than `limit`: so many as are together no larger than one conversation may be.
        """
        await self.flush()
        mark = await self._mark(account_id, after or before)
        place = (ResponseRow.create_time, ResponseRow.id)
        size = func.octet_length(cast(ResponseRow.body, Text))
        query = select(ResponseRow.id, size).where(ResponseRow.account_id == account_id).limit(limit + 1)
        if mark is not None:
            older = tuple_(*place) < tuple_(*map(literal, mark))
            newer = tuple_(*place) > tuple_(*map(literal, mark))
            query = query.where(older if after else newer)
        backwards = before is not None and after is None
        query = query.order_by(*[each.asc() if backwards else each.desc() for each in place])
        async with self._session() as session:
            listed = (await session.execute(query)).all()
            ids = _fitting([(name, size) for name, size in listed[:limit]], self._limits.response_chain_bytes)
            rows = await session.execute(
                select(ResponseRow.id, ResponseRow.body).where(ResponseRow.id.in_(ids))
            )
            bodies = {row.id: row.body for row in rows}
        found = [bodies[name] for name in ids if name in bodies]
        return found[::-1] if backwards else found, len(listed) > len(ids)

    async def delete(self, account_id: str, response_id: str) -> None:
        """404 when the account has no such response."""
        await self.get(account_id, response_id)
        await self.flush()
        own = (ResponseRow.id == response_id, ResponseRow.account_id == account_id)
        async with self._session() as session:
            size = await session.scalar(delete(ResponseRow).where(*own).returning(ResponseRow.size))
        if size is not None:
            self.usage.add(account_id, -1, -size)

    async def flush(self) -> None:
        """Write what waits. When Postgres is away it raises, and everything is kept for the next time."""
        async with self._writing:
            while self._waiting:
                batch = self._next_batch()
                try:
                    await self._write(batch)
                except (DataError, IntegrityError):
                    await self._write_singly(batch)
                for each in batch:
                    del self._waiting[each.id]
                    self._bytes -= each.size

    async def forget(self) -> None:
        """Delete what has been kept long enough, a part at a time."""
        old = (
            select(ResponseRow.id)
            .where(ResponseRow.create_time < datetime.now(UTC) - self._kept)
            .limit(FORGOTTEN_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        gone = FORGOTTEN_AT_ONCE
        while gone == FORGOTTEN_AT_ONCE:
            async with self._session() as session:
                statement = delete(ResponseRow).where(ResponseRow.id.in_(old)).returning(ResponseRow.id)
                gone = len((await session.scalars(statement)).all())

    async def close(self) -> None:
        """Write what is left, for as long as Postgres answers."""
        await self.usage.close()
        try:
            await self.flush()
        except DATABASE_ERRORS as error:
            log.error("%s responses are lost at shutdown: %s", len(self), first_line(error))

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[AsyncSession]:
        async with asyncio.timeout(self._limits.database_seconds), self._database.session() as session:
            yield session

    def _next_batch(self) -> list[Stored]:
        """The oldest: as many, and together as large, as Postgres takes within its time; one at least."""
        batch: list[Stored] = []
        size = 0
        for each in islice(self._waiting.values(), self._limits.responses_a_batch):
            size += each.size
            if batch and size > self._limits.responses_batch_bytes:
                break
            batch.append(each)
        return batch

    async def _write(self, batch: Sequence[Stored]) -> None:
        statement = insert(ResponseRow).values([_values(each) for each in batch])
        async with self._session() as session:
            # A batch whose commit was lost on its way back is sent again.
            await session.execute(statement.on_conflict_do_nothing())

    async def _write_singly(self, batch: Sequence[Stored]) -> None:
        """One that Postgres will never take does not hold up the others."""
        for each in batch:
            try:
                await self._write([each])
            except (DataError, IntegrityError) as error:
                log.error("a response cannot be stored: %s", first_line(error))

    def _waiting_of(self, account_id: str) -> tuple[int, int]:
        """How many responses of an account wait for Postgres, and their bytes."""
        sizes = [each.size for each in self._waiting.values() if each.account_id == account_id]
        return len(sizes), sum(sizes)

    def _held(self, account_id: str, response_id: str) -> Stored | None:
        found = self._waiting.get(response_id)
        return found if found is not None and found.account_id == account_id else None

    async def _earlier(self, account_id: str, response_id: str) -> list[Stored]:
        """The response and those before it, the last one first; as many as there are, within the limit."""
        first = select(ResponseRow.id, ResponseRow.previous_id, literal(1).label("place")).where(
            ResponseRow.id == response_id, ResponseRow.account_id == account_id
        )
        chain = first.cte("chain", recursive=True)
        row = aliased(ResponseRow)
        chain = chain.union_all(
            select(row.id, row.previous_id, chain.c.place + 1).where(
                row.id == chain.c.previous_id,
                row.account_id == account_id,
                chain.c.place < self._limits.response_chain,
            )
        )
        query = select(ResponseRow).join(chain, chain.c.id == ResponseRow.id).order_by(chain.c.place)
        async with self._session() as session:
            return [_stored(each) for each in await session.scalars(query)]

    async def _mark(self, account_id: str, response_id: str | None) -> tuple[datetime, str] | None:
        """Where a response stands among all."""
        if response_id is None:
            return None
        found = await self.get(account_id, response_id)
        return found.create_time, found.id


def no_response(response_id: str) -> GatewayError:
    shown = response_id[:64]
    return GatewayError(404, "NOT_FOUND", f"Response with id '{shown}' not found", param="response_id")


def _fitting(listed: Sequence[tuple[str, int]], most: int) -> list[str]:
    """The first ids, of no more bytes together than `most`; one at least."""
    together = accumulate(size for _, size in listed)
    return [
        name
        for at, ((name, _), size) in enumerate(zip(listed, together, strict=True))
        if not at or size <= most
    ]


def _stored(row: ResponseRow) -> Stored:
    return Stored(row.id, row.account_id, row.previous_id, row.input, row.body, row.create_time, row.size)


def _values(each: Stored) -> dict[str, Any]:
    names = ("id", "account_id", "previous_id", "input", "body", "create_time", "size")
    return {name: getattr(each, name) for name in names}
