"""Who is calling: API keys looked up in Postgres, cached, and still honoured while Postgres is away.

A key that was seen before never waits for SQL: a background pass reads all known keys again every few
seconds, so that a revoked one stops working. Only a key that was never seen is looked up while it waits.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import String, bindparam, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import hash_key, read_credential, valid_keys
from controlplane.db import AsyncDatabase
from controlplane.errors import ApiError
from controlplane.permissions import PERMISSIONS, ROLES, Grant
from controlplane.resources.tables import ApiKeyRow, UserRow
from gateway.background import DATABASE_ERRORS
from gateway.errors import GatewayError, permission_denied, unauthenticated, unavailable
from gateway.limits import Limits

KEYS_A_BATCH = 2000
INFERENCE = PERMISSIONS["inference"]
MAY_ASK = frozenset(role for role in ROLES if INFERENCE.grant(role) is not Grant.NO)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """An API key that was valid when it was last read, and whose it is."""

    uid: uuid.UUID
    key_id: str
    account_id: str
    user_id: str
    role: str
    expire_time: datetime | None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None

    def is_expired(self, now: datetime) -> bool:
        return self.expire_time is not None and self.expire_time <= now


async def load_keys(session: AsyncSession, hashes: Collection[str]) -> dict[str, KnownKey]:
    """The keys with these hashes whose user and account are in good standing, by hash."""
    key, user = ApiKeyRow, UserRow
    # Rows, not `= ANY(array)`: with that, Postgres may compare each key with each of the array.
    asked = func.unnest(bindparam("hashes", list(hashes), ARRAY(String))).column_valued("asked")
    query = valid_keys(
        key.key_hash,
        key.uid,
        key.key_id,
        key.account_id,
        user.id,
        user.role,
        key.expire_time,
        key.requests_per_minute,
        key.tokens_per_minute,
        key.concurrent_requests,
    ).where(key.key_hash == asked)
    return {row[0]: KnownKey(*row[1:]) for row in await session.execute(query)}


class KeyCache:
    def __init__(
        self, database: AsyncDatabase, limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock
        self._known: OrderedDict[str, KnownKey] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[KnownKey | None]] = {}
        self._at_once = asyncio.Semaphore(limits.key_lookups)

    async def authenticate(self, headers: Mapping[str, str]) -> KnownKey:
        """The caller's key; 401 without a valid one, 503 when it cannot be looked up now."""
        try:
            credential = read_credential(headers.get("authorization"), headers.get("x-api-key"))
        except ApiError as error:
            raise unauthenticated(error.message) from None
        digest = hash_key(credential)
        if digest in self._known:
            self._known.move_to_end(digest)
            key = self._known[digest]
        else:
            key = await self._look_for(digest)
        if key.expire_time is not None and key.is_expired(datetime.now(UTC)):
            raise unauthenticated("the API key has expired")
        return key

    async def authorise(self, headers: Mapping[str, str]) -> KnownKey:
        """The key of a caller whose role may run inference; 403 otherwise."""
        key = await self.authenticate(headers)
        if key.role not in MAY_ASK:
            raise permission_denied(f"the role {key.role} may not {INFERENCE.meaning}")
        return key

    async def refresh(self) -> None:
        """Read every known key again, and forget those that are valid no more.

        In batches, so that requests are answered in between.
        """
        hashes = list(self._known)
        async with asyncio.timeout(self._limits.key_pass_seconds):
            for start in range(0, len(hashes), KEYS_A_BATCH):
                await self._refresh_batch(hashes[start : start + KEYS_A_BATCH])

    async def _refresh_batch(self, hashes: list[str]) -> None:
        async with self._database.session() as session:
            valid = await load_keys(session, hashes)
        for digest in hashes:
            if digest not in valid:
                self._known.pop(digest, None)
            elif digest in self._known:
                self._known[digest] = valid[digest]

    async def _look_for(self, digest: str) -> KnownKey:
        if self._unknown.get(digest, 0.0) > self._clock():
            raise _not_valid()
        # Callers that come with the same key at the same time share one lookup, and none of them ends it.
        lookup = self._lookups.get(digest) or self._start_lookup(digest)
        found = await asyncio.shield(lookup)
        if found is None:
            raise _not_valid()
        return found

    def _start_lookup(self, digest: str) -> asyncio.Task[KnownKey | None]:
        lookup = asyncio.create_task(self._learn(digest))
        self._lookups[digest] = lookup
        lookup.add_done_callback(lambda _: self._lookups.pop(digest, None))
        return lookup

    async def _learn(self, digest: str) -> KnownKey | None:
        found = await self._look_up(digest)
        if found is None:
            self._unknown[digest] = self._clock() + self._limits.unknown_key_seconds
            _bound(self._unknown, self._limits.known_keys)
        else:
            self._known[digest] = found
            _bound(self._known, self._limits.known_keys)
        return found

    async def _look_up(self, digest: str) -> KnownKey | None:
        try:
            async with (
                asyncio.timeout(self._limits.database_seconds),
                self._at_once,
                self._database.session() as session,
            ):
                return (await load_keys(session, [digest])).get(digest)
        except DATABASE_ERRORS:
            raise _cannot_check() from None


def _not_valid() -> GatewayError:
    return unauthenticated("the API key is not valid")


def _cannot_check() -> GatewayError:
    return unavailable("UNAVAILABLE", "the API key cannot be checked at the moment; try again")


def _bound(cache: OrderedDict[str, Any], size: int) -> None:
    """Forget what was used longest ago."""
    while len(cache) > size:
        cache.popitem(last=False)
