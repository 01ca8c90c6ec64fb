"""Tokens a minute: what the engine reports counts, in all gateways together, and alone without Valkey."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import update

from controlplane.config import Settings
from controlplane.resources.quotas.catalog import allow
from controlplane.resources.quotas.limits import Limit
from controlplane.resources.tables import AccountRow
from gateway.errors import GatewayError
from gateway.token_rate import TokenRate
from tests.gateway.serving import wait_until

MODEL = "accounts/fireworks/models/llama"
NO_VALKEY = "redis://127.0.0.1:1/0"


class Clock:
    now = 6000.0

    def __call__(self) -> float:
        return self.now


def limits(account_id: str, prompt: int = 100, generated: int = 10) -> dict[str, Limit]:
    return {
        "prompt": Limit(account_id, "prompt-tpm", prompt, prompt),
        "generated": Limit(account_id, "generated-tpm", generated, generated),
    }


@asynccontextmanager
async def counting(redis_url: str, clock: Clock) -> AsyncIterator[TokenRate]:
    rate = TokenRate(redis_url, clock)
    try:
        yield rate
    finally:
        await rate.close()


def refusal(rate: TokenRate, allowed: dict[str, Limit]) -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        rate.admit(allowed)
    assert refused.value.status == 429
    return refused.value


async def test_requests_are_let_through_until_the_tokens_have_come_and_again_when_they_are_old() -> None:
    clock, allowed = Clock(), limits("acme")
    async with counting(NO_VALKEY, clock) as rate:
        assert rate.admit(allowed) == {"prompt": 100, "generated": 10}
        rate.add("acme", 40, 9)
        assert rate.admit(allowed) == {"prompt": 60, "generated": 1}
        rate.add("acme", 0, 11)  # an answer may go beyond the limit
        error = refusal(rate, allowed)
        assert "at most 10 generated tokens a minute" in error.message
        assert "20 came in the last minute" in error.message
        clock.now += int(error.headers["Retry-After"]) - 2
        refusal(rate, allowed)
        clock.now += 2
        assert rate.admit(allowed)["generated"] >= 1
        rate.add("acme", 200, 0)
        assert "prompt tokens" in refusal(rate, allowed).message
        assert rate.admit(limits("rival"))["prompt"] == 100, "others have tokens of their own"


async def test_gateways_learn_from_each_other_what_has_come(settings: Settings) -> None:
    account, clock = uuid.uuid4().hex, Clock()
    allowed = limits(account)
    async with counting(settings.redis_url, clock) as one, counting(settings.redis_url, clock) as other:
        one.add(account, 30, 4)
        other.add(account, 20, 3)
        for rate in (one, other, one):
            await rate.tell()
        assert one.admit(allowed) == other.admit(allowed) == {"prompt": 50, "generated": 3}
        one.add(account, 0, 3)
        await one.tell()
        await other.tell()
        refusal(other, allowed)
        clock.now += 60
        await other.tell()
        refusal(other, allowed)
        clock.now += 60
        assert other.admit(allowed) == {"prompt": 100, "generated": 10}


async def test_the_tokens_of_a_minutes_last_second_are_told_in_the_next_one(settings: Settings) -> None:
    account, clock = uuid.uuid4().hex, Clock()
    allowed = limits(account)
    async with counting(settings.redis_url, clock) as one, counting(settings.redis_url, clock) as other:
        one.add(account, 30, 5)
        original = one._ask

        async def slow(*asked: Any) -> Any:
            answer = await original(*asked)
            clock.now = 6060.0
            one.add(account, 1, 1)
            return answer

        one._ask = slow  # type: ignore[method-assign]
        await one.tell()
        one._ask = original  # type: ignore[method-assign]
        one.add(account, 1, 0)
        for _ in range(2):
            await one.tell()
        other.add(account, 0, 0)
        await other.tell()
        assert other.admit(allowed) == one.admit(allowed) == {"prompt": 68, "generated": 4}


async def test_what_is_added_while_valkey_is_told_is_told_the_next_time(settings: Settings) -> None:
    account, clock = uuid.uuid4().hex, Clock()
    async with counting(settings.redis_url, clock) as one, counting(settings.redis_url, clock) as other:
        one.add(account, 10, 1)
        original = one._ask

        async def slow(*asked: Any) -> Any:
            answer = await original(*asked)
            one.add(account, 1, 0)
            return answer

        one._ask = slow  # type: ignore[method-assign]
        await one.tell()
        one._ask = original  # type: ignore[method-assign]
        assert one.admit(limits(account))["prompt"] == 89
        await one.tell()
        other.add(account, 0, 0)
        await other.tell()
        assert other.admit(limits(account)) == one.admit(limits(account)) == {"prompt": 89, "generated": 9}


async def test_many_accounts_are_told_of_on_few_ways_to_valkey(settings: Settings) -> None:
    accounts, clock = [uuid.uuid4().hex for _ in range(300)], Clock()
    async with counting(settings.redis_url, clock) as one, counting(settings.redis_url, clock) as other:
        original, ways = one._ask, []

        async def counted(keys: Any, counts: Any) -> Any:
            ways.append(len(keys))
            return await original(keys, counts)

        one._ask = counted  # type: ignore[method-assign]
        for place, account in enumerate(accounts):
            one.add(account, place, 1)
            other.add(account, 0, 1)
        await one.tell()
        await other.tell()
        assert [other.admit(limits(account, prompt=1000)) for account in accounts] == [
            {"prompt": 1000 - place, "generated": 8} for place in range(300)
        ]
        assert len(ways) <= 4
        assert sum(ways) == 600
        clock.now += 120
        await one.tell()
        assert sum(ways) == 600, "what is older than the minute before is told to nobody"


async def test_without_valkey_a_gateway_goes_by_what_it_has_seen_and_tells_it_later(
    settings: Settings,
) -> None:
    account, clock = uuid.uuid4().hex, Clock()
    async with counting(NO_VALKEY, clock) as alone, counting(settings.redis_url, clock) as other:
        alone.add(account, 60, 2)
        await alone.look()
        assert alone.admit(limits(account)) == {"prompt": 40, "generated": 8}
        alone._valkey, alone._added = other._valkey, other._added  # it answers again
        await alone.look()
        other.add(account, 0, 0)
        await other.tell()
        assert other.admit(limits(account)) == {"prompt": 40, "generated": 8}


@pytest.fixture
def serverless(world, engine_url):
    base = world.add_base("fireworks", "llama", public=True)
    deployment = world.add_deployment("fireworks", "shared", base)
    world.add_replica(deployment, engine_url, "base-uid")
    world.load("fireworks", "llama-1", base, deployment)
    return world


def ask(running, key, model=MODEL, **fields):
    sent = {"model": model, "prompt": "count", **fields}
    return running.http(key).post("/v1/completions", json=sent)


@pytest.mark.parametrize("stream", [False, True])
def test_the_engines_counts_fill_the_quota_and_its_rest_is_told(serverless, start_gateway, stream):
    quotas = {
        "serverless-inference-prompt-tpm": allow(1000),
        "serverless-inference-generated-tpm": allow(5, 50),
    }
    running = start_gateway(quotas=quotas, redis_url=NO_VALKEY)
    key = serverless.keys["acme"]
    first, second, third = (ask(running, key, stream=stream) for _ in range(3))
    assert first.headers["x-ratelimit-limit-tokens-generated"] == "5"
    assert first.headers["x-ratelimit-remaining-tokens-generated"] == "5"
    assert first.headers["x-ratelimit-limit-requests"] == "6000"
    assert second.headers["x-ratelimit-remaining-tokens-generated"] == "2"
    assert int(second.headers["x-ratelimit-remaining-tokens-prompt"]) < 1000
    assert (third.status_code, third.json()["error"]["type"]) == (429, "rate_limit_error")
    assert 1 <= int(third.headers["retry-after"]) <= 120
    assert "serverless-inference-generated-tpm" in third.json()["error"]["message"]


def test_ones_own_deployments_know_no_tokens_a_minute(served, start_gateway):
    quotas = {"serverless-inference-generated-tpm": allow(1)}
    running = start_gateway(quotas=quotas, redis_url=NO_VALKEY)
    answers = [ask(running, served.key, served.base) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert "x-ratelimit-limit-requests" not in answers[0].headers


def test_a_suspended_account_is_told_to_pay_until_it_is_suspended_no_more(served, db):
    def suspend(state: str) -> None:
        with db.session() as session:
            session.execute(update(AccountRow).where(AccountRow.id == "acme").values(suspend_state=state))

    suspend("FAILED_PAYMENTS")
    refused = wait_until(
        lambda: found if (found := ask(served.running, served.key, "llama")).status_code != 200 else None
    )
    assert refused.status_code == 402
    assert refused.headers["retry-after"] == "60"
    assert refused.json()["error"]["message"] == "accounts/acme is suspended: failed payments"
    suspend("UNSUSPENDED")
    wait_until(lambda: ask(served.running, served.key, "llama").status_code == 200)
