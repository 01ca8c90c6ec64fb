"""How much each account has stored, against its quotas: Postgres is asked beside the requests, never by one.

What this gateway stores counts at once. What others store counts once it has been read, so that an account
may come to have a little more than its quota.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select

from controlplane.db import AsyncDatabase
from controlplane.resources.quotas.limits import Limit, used_up_text
from controlplane.resources.tables import ResponseRow
from gateway.background import DATABASE_ERRORS
from gateway.errors import GatewayError
from gateway.limits import Limits

KNOWN_ACCOUNTS = 10_000
HOW_TO_GO_ON = "delete some, or send 'store': false"


@dataclass(slots=True)
class Kept:
    """What one account has stored."""

    count: int = 0
    bytes: int = 0
    counted_at: float | None = None
    """None until it has been read."""


class StoredUsage:
    def __init__(
        self,
        database: AsyncDatabase,
        limits: Limits,
        writing: asyncio.Lock,
        waiting: Callable[[str], tuple[int, int]],
    ) -> None:
        """`waiting` tells how much of an account is not in Postgres yet, which is written under `writing`."""
        self._database = database
        self._limits = limits
        self._writing = writing
        self._waiting = waiting
        self._accounts: OrderedDict[str, Kept] = OrderedDict()
        self._counting: dict[str, asyncio.Task[None]] = {}

    def require_room(self, most: Limit, most_bytes: Limit) -> None:
        """429 for an account that has stored what it may. Never waits."""
        kept = self._of(most.account_id)
        now = time.monotonic()
        if kept.counted_at is None or now - kept.counted_at > self._limits.stored_fresh_seconds:
            self._count(most.account_id)
        if kept.count >= most.value:
            used = f"{kept.count:,} are"
            raise _used_up(most, f"{most.value:,} stored responses", used)
        if kept.bytes >= most_bytes.value:
            used = f"{kept.bytes:,} are"
            raise _used_up(most_bytes, f"{most_bytes.value:,} bytes of stored responses", used)

    def add(self, account_id: str, count: int, size: int) -> None:
        """So many more, or fewer when negative, of so many bytes together."""
        kept = self._of(account_id)
        kept.count += count
        kept.bytes += size

    async def close(self) -> None:
        for task in self._counting.values():
            task.cancel()
        await asyncio.gather(*self._counting.values(), return_exceptions=True)

    def _count(self, account_id: str) -> None:
        if account_id not in self._counting:
            task = self._counting[account_id] = asyncio.create_task(self._read(account_id))
            task.add_done_callback(lambda _: self._counting.pop(account_id, None))

    async def _read(self, account_id: str) -> None:
        kept = self._of(account_id)
        size = func.coalesce(func.sum(ResponseRow.size), 0)
        query = select(func.count(), size).where(ResponseRow.account_id == account_id)
        try:
            async with self._writing, asyncio.timeout(self._limits.database_seconds):
                async with self._database.session() as session:
                    count, together = (await session.execute(query)).one()
                more, size_of_more = self._waiting(account_id)
        except DATABASE_ERRORS:
            return  # what is known is all there is, and it is tried again
        kept.count, kept.bytes, kept.counted_at = count + more, int(together) + size_of_more, time.monotonic()

    def _of(self, account_id: str) -> Kept:
        kept = self._accounts.get(account_id)
        if kept is None:
            kept = self._accounts[account_id] = Kept()
        self._accounts.move_to_end(account_id)
        while len(self._accounts) > KNOWN_ACCOUNTS:
            self._accounts.popitem(last=False)
        return kept


def _used_up(limit: Limit, most: str, used: str) -> GatewayError:
    text = used_up_text(limit, most, used, [], 0)
    return GatewayError(
        429,
        "RESOURCE_EXHAUSTED",
        f"{text}; {HOW_TO_GO_ON}",
        kind="insufficient_quota",
        headers={"x-should-retry": "false"},
    )
