"""Quotas at the gateway: requests a minute to what others serve, and the month's spend."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import redis
from sqlalchemy import delete, select, text, update
from sqlalchemy.engine import make_url

from controlplane.prices import Prices
from controlplane.resources.ledger.entries import month_of
from controlplane.resources.quotas.catalog import allow
from controlplane.resources.quotas.limits import Limit
from controlplane.resources.tables import LedgerRow, QuotaRow, SpendRow
from gateway.account_limits import AccountLimits
from gateway.errors import GatewayError
from gateway.request_rate import MISSES, SHARE, RequestRate, Seen, Window
from tests.gateway.serving import Wire, wait_until

MODEL = "accounts/fireworks/models/llama"
PRICES = Prices.model_validate({"tokens": {"default": {"prompt": "100000", "completion": "200000"}}})


@pytest.fixture
def serverless(world, engine, engine_url):
    """The platform serves a public model; `acme` and `rival` may ask it."""
    base = world.add_base("fireworks", "llama", public=True)
    deployment = world.add_deployment("fireworks", "shared", base)
    world.add_replica(deployment, engine_url, "base-uid")
    world.load("fireworks", "llama-1", base, deployment)
    return world


def ask(running, key, model=MODEL):
    return running.http(key).post("/v1/completions", json={"model": model, "prompt": "count"})


@pytest.fixture
def unique_accounts(db):
    """Counts in Valkey outlive a test: they go by the account, and are cleared for each."""

    def clear(redis_url):
        with redis.Redis.from_url(redis_url) as client:
            for key in client.scan_iter("hearth:requests:*"):
                client.delete(key)

    return clear


@pytest.fixture
def few_requests(settings, unique_accounts):
    unique_accounts(settings.redis_url)
    return {"quotas": {"serverless-inference-rpm": allow(3, 5)}}


def patient(limits):
    """Tests share the machine with others: what is to be shared may take its time."""
    return limits(valkey_seconds=5.0, valkey_look_seconds=0.1)


def test_requests_a_minute_are_counted_over_all_gateways(serverless, start_gateway, limits, few_requests):
    one, other = (start_gateway(patient(limits), **few_requests) for _ in range(2))
    for running in (one, other):
        wait_until(lambda running=running: running.gateway.request_rate.is_shared)
    key = serverless.keys["acme"]
    answers = [ask(running, key) for running in (one, other, one, other, one)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    refused = answers[-1]
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("RESOURCE_EXHAUSTED", "rate_limit_error")
    assert error["message"] == (
        "quota serverless-inference-rpm of accounts/acme is used up: at most 3 requests a minute to models "
        f"that others serve, and 3 were made in the last minute: {MODEL}; "
        "an admin of the account may raise the quota up to 5"
    )
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    # Another account has requests of its own.
    assert ask(one, serverless.keys["rival"]).status_code == 200


def test_ones_own_deployments_are_not_counted(served, start_gateway, limits, few_requests):
    running = start_gateway(patient(limits), **few_requests)
    assert [ask(running, served.key, served.base).status_code for _ in range(6)] == [200] * 6


def test_a_refused_request_is_neither_counted_nor_metered(
    serverless, start_gateway, limits, few_requests, db
):
    running = start_gateway(patient(limits), **few_requests)
    key = serverless.keys["acme"]
    for _ in range(5):
        ask(running, key)

    def entries():
        with db.session() as session:
            return session.scalars(select(LedgerRow.http_status)).all()

    assert wait_until(lambda: entries() if len(entries()) >= 3 else None) == [200, 200, 200]
    running.http(key).post("/v1/completions", json={"model": MODEL})  # malformed: never a request
    assert len(entries()) == 3


def test_without_valkey_each_gateway_counts_for_itself_and_serves_on(
    serverless, start_gateway, limits, few_requests
):
    one, other = (
        start_gateway(limits(), redis_url="redis://127.0.0.1:1/0", **few_requests) for _ in range(2)
    )
    key = serverless.keys["acme"]
    for running in (one, other):
        assert [ask(running, key).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert running.gateway.is_ready


def test_a_value_that_an_admin_sets_counts_within_moments(
    serverless, start_gateway, limits, few_requests, db
):
    running = start_gateway(patient(limits), **few_requests)
    key = serverless.keys["acme"]
    assert [ask(running, key).status_code for _ in range(4)] == [200, 200, 200, 429]
    with db.session() as session:
        session.add(QuotaRow(account_id="acme", id="serverless-inference-rpm", value=4))
    wait_until(lambda: running.gateway.account_limits.requests_a_minute("acme").value == 4)
    assert [ask(running, key).status_code for _ in range(2)] == [200, 429]


@pytest.fixture
def valkey_wire(settings):
    url = make_url(settings.redis_url)
    wire = Wire(url.host or "127.0.0.1", url.port or 6379)
    yield wire
    wire.close()


def limit(value=2, account_id=None):
    return Limit(account_id or f"a-{uuid.uuid4().hex[:8]}", "serverless-inference-rpm", value, value)


async def admitted(rate, asked, times):
    found = []
    for _ in range(times):
        try:
            await rate.admit(asked, MODEL)
            found.append(True)
        except GatewayError:
            found.append(False)
    return found


async def test_a_valkey_that_hangs_costs_milliseconds_and_then_nothing(settings, valkey_wire, limits):
    url = make_url(settings.redis_url).set(host="127.0.0.1", port=valkey_wire.port)
    rate = RequestRate(url.render_as_string(hide_password=False), limits(valkey_seconds=0.05))
    try:
        while not rate.is_shared:
            await rate.look()
        valkey_wire.freeze()
        asked, started = limit(100), time.monotonic()
        assert await admitted(rate, asked, 50) == [True] * 50
        # Three waits at most: after them nobody waits for it any more.
        assert time.monotonic() - started < 0.05 * MISSES + 2
        assert not rate.is_shared
        valkey_wire.mend()
        async with asyncio.timeout(15):
            while not rate.is_shared:
                await rate.look()
        assert await admitted(rate, asked, 1) == [True]
    finally:
        valkey_wire.mend()
        await rate.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0 // 60 * 60

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=[True, False], ids=["in Valkey", "alone"])
async def timed(request, settings, limits):
    """A rate at a time of the test's own, with Valkey and without."""
    clock = Clock()
    clock.now += uuid.uuid4().int % 10_000 * 600  # minutes that no other test counts in
    rate = RequestRate(settings.redis_url, limits(valkey_seconds=5.0), clock)
    if request.param:
        while not rate.is_shared:
            await rate.look()
    yield rate, clock
    await rate.close()


async def test_the_window_slides(timed):
    rate, clock = timed
    asked = limit(4)
    clock.now += 30
    assert await admitted(rate, asked, 5) == [True] * 4 + [False]
    clock.now += 30  # a new minute; all of the last one is less than a minute ago
    assert await admitted(rate, asked, 1) == [False]
    clock.now += 30
    assert await admitted(rate, asked, 3) == [True, True, False]
    clock.now += 120
    assert await admitted(rate, asked, 5) == [True] * 4 + [False]


async def test_who_waits_as_long_as_told_is_admitted(timed):
    rate, clock = timed
    asked = limit(3)
    for _ in range(12):
        try:
            await rate.admit(asked, MODEL)
            clock.now += 7
        except GatewayError as refused:
            clock.now += int(refused.headers["Retry-After"])
            await rate.admit(asked, MODEL)


@pytest.fixture
async def gateways(settings, limits):
    """The rates of several gateways that count together, at a time of the test's own."""
    clock = Clock()
    clock.now += uuid.uuid4().int % 10_000 * 600
    rates = [RequestRate(settings.redis_url, limits(valkey_seconds=5.0), clock) for _ in range(3)]
    for rate in rates:
        while not rate.is_shared:
            await rate.look()
    yield rates, clock
    for rate in rates:
        await rate.close()


def counting(rate, monkeypatch):
    """How often a rate asks Valkey from now on."""
    asked, take = [], rate._take_places

    async def counted(**call):
        asked.append(call)
        return await take(**call)

    monkeypatch.setattr(rate, "_take_places", counted)
    return asked


async def test_who_asks_often_is_looked_up_seldom(gateways, monkeypatch):
    (rate, *_), _ = gateways
    asked = counting(rate, monkeypatch)
    assert await admitted(rate, limit(100_000), 5_000) == [True] * 5_000
    assert len(asked) < 30


async def test_requests_that_come_together_share_one_look(gateways, monkeypatch):
    (rate, *_), _ = gateways
    wanted = limit(1_000_000)
    await admitted(rate, wanted, 500)
    rate._local.of(wanted.account_id, Window.at(rate._clock())).places = 0
    asked = counting(rate, monkeypatch)
    await asyncio.gather(*[rate.admit(wanted, MODEL) for _ in range(200)])
    assert len(asked) == 1


async def test_a_crowd_at_the_beginning_of_a_minute_takes_its_places_together(gateways, monkeypatch):
    (rate, *_), _ = gateways
    asked, wanted = counting(rate, monkeypatch), limit(100)
    found = await asyncio.gather(*[rate.admit(wanted, MODEL) for _ in range(300)], return_exceptions=True)
    assert sum(isinstance(each, int) for each in found) == 100
    assert len(asked) == 2


async def test_a_caller_that_leaves_while_it_waits_takes_nothing_from_the_others(gateways, monkeypatch):
    (rate, *_), _ = gateways
    asked, wanted = counting(rate, monkeypatch), limit(2)
    leaving, *staying = [asyncio.create_task(rate.admit(wanted, MODEL)) for _ in range(3)]
    await asyncio.sleep(0)
    leaving.cancel()
    assert await asyncio.gather(*staying, return_exceptions=True) == [1, 0]
    assert len(asked) == 1
    assert await admitted(rate, wanted, 1) == [False]


async def test_gateways_together_never_let_more_through_than_the_limit_and_hardly_less(gateways):
    rates, clock = gateways
    wanted = limit(2_000)
    turns = [await admitted(rate, wanted, 100) for _ in range(10) for rate in rates]
    passed = sum(sum(turn) for turn in turns)
    assert 2_000 - len(rates) * (2_000 // SHARE) <= passed <= 2_000
    clock.now += 60  # all of it is less than a minute ago, and nothing that was left over is good any more
    assert not any([any(await admitted(rate, wanted, 5)) for rate in rates])


async def test_places_that_are_left_over_end_with_their_minute(gateways):
    (rate, *_), clock = gateways
    wanted = limit(1_000)
    await admitted(rate, wanted, 50)
    minute = rate._local.of(wanted.account_id, Window.at(clock.now))
    assert minute.places
    clock.now += 60
    rate._local.of(wanted.account_id, Window.at(clock.now))
    assert not minute.places


async def test_a_quota_of_nothing_admits_nothing(timed):
    rate, _ = timed
    assert await admitted(rate, limit(0), 2) == [False, False]


# (limit, weight of the minute before, current, before, admitted, seconds to wait)
DECISIONS = [
    (3, 1.0, 0, 0, True, None),
    (3, 1.0, 2, 0, True, None),
    (3, 0.5, 3, 0, False, 50),
    (3, 1.0, 0, 3, False, 20),
    (3, 0.5, 0, 3, True, None),
    (3, 0.5, 1, 3, False, 10),
    (1, 1.0, 1, 0, False, 120),
    (0, 1.0, 0, 0, False, 60),
]


@pytest.mark.parametrize(("value", "weight", "current", "before", "fits", "wait"), DECISIONS)
def test_decisions(value, weight, current, before, fits, wait):
    window = Window(7, weight)
    seen = Seen.decide(value, window, current, before)
    assert bool(seen.places) is fits
    if wait is not None:
        assert seen.wait(value, window) == wait


def spend(db, account_id, dollars, resource=MODEL):
    with db.session() as session:
        month = month_of(datetime.now(UTC))
        session.add(
            SpendRow(month=month, account_id=account_id, resource=resource, cost_nanos=dollars * 10**9)
        )


def test_who_has_spent_the_month_is_refused_until_the_quota_is_raised(served, db):
    assert ask(served.running, served.key, served.base).status_code == 200
    spend(db, "acme", 30, "accounts/acme/deployments/main")
    spend(db, "acme", 20)
    with db.session() as session:
        session.add(QuotaRow(account_id="acme", id="monthly-spend-usd", value=50, max_value=60))
    refused = wait_until(
        lambda: found if (found := ask(served.running, served.key, served.base)).status_code == 429 else None
    )
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("RESOURCE_EXHAUSTED", "insufficient_quota")
    assert error["message"] == (
        "quota monthly-spend-usd of accounts/acme is used up: at most $50 in a month, and $50.00 is spent in "
        f"{datetime.now(UTC):%Y-%m}: accounts/acme/deployments/main, {MODEL}; "
        "an admin of the account may raise the quota up to 60"
    )
    assert refused.headers["x-should-retry"] == "false"
    with db.session() as session:
        session.execute(update(QuotaRow).values(value=51))
    wait_until(lambda: ask(served.running, served.key, served.base).status_code == 200)


def test_tokens_that_are_paid_for_reach_the_quota_by_themselves(serverless, start_gateway, db, limits):
    """7 prompt and 3 completion tokens are 1.3 dollars at these prices."""
    running = start_gateway(patient(limits), prices=PRICES, quotas={"monthly-spend-usd": allow(2)})
    key = serverless.keys["acme"]
    assert [ask(running, key).status_code for _ in range(2)] == [200, 200]
    wait_until(lambda: ask(running, key).status_code == 429)
    with db.session() as session:
        # Both as they were at one moment: the gateway may be writing more.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        (row,) = session.scalars(select(SpendRow).where(SpendRow.account_id == "acme"))
        entries = session.scalars(select(LedgerRow).where(LedgerRow.account_id == "acme")).all()
    assert (row.month, row.resource) == (month_of(datetime.now(UTC)), MODEL)
    assert {entry.cost_nanos for entry in entries} == {1_300_000_000}
    assert row.cost_nanos == sum(entry.cost_nanos for entry in entries)
    assert ask(running, serverless.keys["rival"]).status_code == 200


def test_serving_oneself_costs_nothing_by_the_token(served, start_gateway, db, limits):
    running = start_gateway(patient(limits), prices=PRICES)
    assert ask(running, served.key, served.base).status_code == 200

    def entry():
        with db.session() as session:
            return session.scalar(select(LedgerRow))

    found = wait_until(entry)
    assert (found.owner_id, found.prompt_tokens, found.cost_nanos) == ("acme", 7, 0)


def test_a_new_month_begins_while_the_database_is_away():
    march = datetime(2026, 3, 31, 23, 59, tzinfo=UTC)
    known = AccountLimits(month_of(march), {"acme": "spent"})
    with pytest.raises(GatewayError):
        known.refuse_overspent("acme", march)
    known.refuse_overspent("acme", march + timedelta(minutes=1))
    known.refuse_overspent("rival", march)


def test_what_the_snapshot_says_follows_the_spend(served, db):
    spend(db, "acme", 1)
    with db.session() as session:
        session.add(QuotaRow(account_id="acme", id="monthly-spend-usd", value=1))
    wait_until(lambda: "acme" in served.running.gateway.account_limits.overspent)
    with db.session() as session:
        session.execute(delete(SpendRow))
        session.execute(text("UPDATE quotas SET value = 5"))
    wait_until(lambda: not served.running.gateway.account_limits.overspent)
