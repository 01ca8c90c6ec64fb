"""The parts of one gateway process, put together."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress

from controlplane.config import Settings
from controlplane.db import AsyncDatabase
from controlplane.observability.traces import start_tracing
from controlplane.resources.deployments.waking import wake
from controlplane.resources.quotas.catalog import allowances
from controlplane.resources.quotas.limits import Limit
from gateway.account_limits import NOTHING_KNOWN, read_account_limits
from gateway.activator import Activator
from gateway.admission import Admission
from gateway.background import DATABASE_ERRORS, Background
from gateway.balancer import Balancer
from gateway.engines import Engines
from gateway.key_limits import REQUESTS, TOGETHER, TOKENS, limit_of_key
from gateway.keys import KeyCache, KnownKey
from gateway.limits import Limits
from gateway.load import LoadBook, LoadReport
from gateway.media.fetching import Fetcher
from gateway.metering import Meter
from gateway.relay import Relay
from gateway.replicas import read_snapshot
from gateway.request_rate import RequestRate
from gateway.responses.store import ResponseStore
from gateway.snapshot import Route, Snapshot
from gateway.telemetry import Telemetry
from gateway.timers import Timers
from gateway.token_rate import TokenRate

Headers = list[tuple[bytes, bytes]]

RATE_HEADERS = {
    kind: (f"x-ratelimit-limit-{name}".encode(), f"x-ratelimit-remaining-{name}".encode())
    for kind, name in (
        ("requests", "requests"),
        ("prompt", "tokens-prompt"),
        ("generated", "tokens-generated"),
    )
}
LOAD_REPORT_SECONDS = 1.0
TOKENS_TOLD_SECONDS = 1.0


class Gateway:
    """Everything that requests share. `snapshot` is None until the first one is loaded."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self.timers = Timers(asyncio.get_running_loop())
        self.settings = settings
        self.limits = limits
        self.snapshot: Snapshot | None = None
        self.snapshot_began = 0.0
        """By a clock that never goes back."""
        self._looking = asyncio.Lock()
        self.database = AsyncDatabase(settings.database_url, settings.database_pool_size)
        self.telemetry = Telemetry()
        self.tracing = start_tracing("gateway")
        self.keys = KeyCache(self.database, limits)
        self.meter = Meter(self.database, limits, self.telemetry.drop_usage, settings.prices)
        self.responses = ResponseStore(self.database, limits, settings.response_days)
        self.admission = Admission(limits.in_flight, limits.in_flight_per_account, limits.held_bytes)
        self.account_limits = NOTHING_KNOWN
        self.request_rate = RequestRate(settings.redis_url, limits)
        self.token_rate = TokenRate(settings.redis_url)
        self.load = LoadBook()
        self.load_report = LoadReport(settings.redis_url, self.load)
        self.activator = Activator(limits, self.load, self.wake, self.telemetry)
        self.balancer = Balancer(limits.avoid_seconds)
        self.engines = Engines(limits, self.balancer, self.telemetry)
        self.images = Fetcher(limits)
        self.relay = Relay(settings.api_url, limits) if settings.api_url else None
        self.background = Background()
        self.is_draining = False
        """It has been told to stop."""
        self.telemetry.watch(self)

    def start(self) -> None:
        self.background.repeat("loading routes", self.limits.snapshot_seconds, self.load_snapshot)
        self.background.repeat("looking for replicas", self.limits.wait_look_seconds, self.look_for_replicas)
        self.background.repeat("telling the load", LOAD_REPORT_SECONDS, self.load_report.tell)
        self.background.repeat("loading quotas", self.limits.snapshot_seconds, self.load_account_limits)
        self.background.repeat("watching Valkey", self.limits.valkey_look_seconds, self.request_rate.look)
        self.background.repeat("telling the tokens", TOKENS_TOLD_SECONDS, self.token_rate.look)
        self.background.repeat("refreshing keys", self.limits.key_fresh_seconds, self.keys.refresh)
        self.background.repeat("writing usage", self.limits.flush_seconds, self.meter.flush)
        self.background.repeat("storing responses", self.limits.store_seconds, self.responses.flush)
        self.background.repeat("forgetting responses", self.limits.forget_seconds, self.responses.forget)

    async def load_snapshot(self) -> None:
        began = time.monotonic()
        snapshot = await read_snapshot(self.database, self.limits.database_seconds)
        if began > self.snapshot_began:
            self.snapshot, self.snapshot_began = snapshot, began
        self.activator.tell()

    async def look_again(self) -> None:
        """Load the routes for a name that none of them has: it may be younger than they are.

        One look serves all who wait for it. While Postgres is away, what is known is all there is.
        """
        asked = time.monotonic()
        with suppress(*DATABASE_ERRORS):
            async with asyncio.timeout(self.limits.look_again_seconds), self._looking:
                if self.snapshot_began < asked:
                    await asyncio.sleep(self.limits.look_again_pause)
                    await self.load_snapshot()

    async def look_for_replicas(self) -> None:
        """Routes are loaded more often while a request waits for one."""
        if self.activator.held:
            await self.load_snapshot()

    async def wake(self, deployment_uid: uuid.UUID) -> None:
        async with asyncio.timeout(self.limits.database_seconds), self.database.session() as session:
            woken = await wake(session, deployment_uid)
        if woken:
            await asyncio.to_thread(hint, self.settings, deployment_uid)

    async def load_account_limits(self) -> None:
        allowed = allowances(self.settings.quotas)
        self.account_limits = await read_account_limits(self.database, allowed, self.limits.database_seconds)

    async def admit(self, key: KnownKey, route: Route) -> Headers:
        """What an account is told of its limits when it asks for what others serve.

        402 for one that is suspended; 429 for one that has spent its month, asks too often or takes too much,
        or whose key does.
        """
        account_id = key.account_id
        known = self.account_limits
        if account_id in known.suspended or account_id in known.overspent:
            known.refuse_suspended(account_id)
            known.refuse_overspent(account_id)
        if key.tokens_per_minute is not None:
            self.token_rate.admit({TOGETHER: limit_of_key(key.key_id, TOKENS, key.tokens_per_minute)})
        if key.requests_per_minute is not None:
            limit_of_this = limit_of_key(key.key_id, REQUESTS, key.requests_per_minute)
            await self.request_rate.admit(limit_of_this, route.model.name)
        if route.deployment.account_id == account_id:
            return []
        tokens = known.tokens_a_minute(account_id)
        limit = known.requests_a_minute(account_id)
        left = self.token_rate.admit(tokens)
        requests_left = await self.request_rate.admit(limit, route.model.name)
        return rate_headers({"requests": limit, **tokens}, {"requests": requests_left, **left})

    @property
    def is_ready(self) -> bool:
        return not self.missing_for_work()

    def missing_for_life(self) -> list[str]:
        """Work beside the requests that has ended by a fault of its own: a new process begins it again."""
        return [f"{name} has ended" for name in sorted(self.background.failed)]

    def missing_for_work(self) -> list[str]:
        """Routes that are known once do: requests go on while PostgreSQL is away."""
        missing = self.missing_for_life()
        if self.snapshot is None:
            missing.append("the routes have not been read yet")
        if self.account_limits is NOTHING_KNOWN:
            missing.append("the accounts' limits have not been read yet")
        if self.is_draining:
            missing.append("it is stopping")
        return missing

    async def stop(self) -> None:
        await self.background.stop()
        await self.load_report.close()
        await self.meter.close()
        await self.responses.close()
        await self.request_rate.close()
        await self.token_rate.close()
        await self.engines.close()
        self.images.close()
        if self.relay is not None:
            await self.relay.close()
        await self.database.close()
        await asyncio.to_thread(self.tracing.close)


def rate_headers(limits: Mapping[str, Limit], left: Mapping[str, int]) -> Headers:
    told: Headers = []
    for kind, rest in left.items():
        most, remaining = RATE_HEADERS[kind]
        told += ((most, b"%d" % limits[kind].value), (remaining, b"%d" % rest))
    return told


def hint(settings: Settings, deployment_uid: uuid.UUID) -> None:
    """Ask a worker to look at the deployment now."""
    from controlplane.queue import RECONCILE_DEPLOYMENT, enqueue  # Celery, which few gateways ever need

    enqueue(settings, RECONCILE_DEPLOYMENT, deployment_uid)
