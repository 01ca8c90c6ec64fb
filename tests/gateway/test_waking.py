"""Deployments at zero: a request wakes them and waits, through the real gateway and database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from redis import Redis
from sqlalchemy import delete, update

from controlplane.load_board import decode, figures_key
from controlplane.resources.tables import DeployedModelRow, DeploymentRow, ReplicaRow
from gateway.limits import Limits
from tests.gateway.conftest import Running
from tests.gateway.serving import wait_until
from tests.gateway.world import World

ASK = {"model": "llama", "prompt": "count"}


@dataclass
class Asleep:
    """`acme`'s deployment `main` at zero, and a gateway that holds requests for it."""

    running: Running
    world: World
    deployment: uuid.UUID
    engine_url: str
    callers: ThreadPoolExecutor

    def ask(self, headers: dict[str, str] | None = None, **body: Any) -> Future[httpx.Response]:
        http = self.running.http(self.world.keys["acme"])
        return self.callers.submit(http.post, "/v1/completions", json={**ASK, **body}, headers=headers or {})

    def until_held(self, count: int = 1) -> None:
        wait_until(lambda: self.running.gateway.activator.held == count)

    def start_replica(self) -> None:
        """As the workers would."""
        self.world.add_replica(self.deployment, self.engine_url, "base-uid")

    def change(self, **values: Any) -> None:
        with self.world.db.session() as session:
            session.execute(
                update(DeploymentRow).where(DeploymentRow.uid == self.deployment).values(**values)
            )

    @property
    def desired(self) -> int:
        with self.world.db.session() as session:
            return session.get_one(DeploymentRow, self.deployment).desired_replica_count


@pytest.fixture
def asleep(
    world: World, engine_url: str, start_gateway: Callable[..., Running], limits: Callable[..., Limits]
) -> Iterator[Asleep]:
    base = world.add_base("acme", "llama")
    deployment = world.add_deployment("acme", "main", base, desired_replica_count=0)
    world.load("acme", "llama-1", base, deployment, state="UPDATING")
    running = start_gateway(limits(wait_seconds=60.0, wait_look_seconds=0.02, keep_alive_seconds=0.05))
    with ThreadPoolExecutor(4) as callers:
        yield Asleep(running, world, deployment, engine_url, callers)


def test_a_request_wakes_it_waits_and_is_answered(asleep: Asleep) -> None:
    asked = asleep.ask()
    wait_until(lambda: asleep.desired == 1)
    assert not asked.done()
    asleep.start_replica()
    assert asked.result().json()["choices"][0]["text"] == "one two three"
    assert asleep.running.gateway.activator.held == 0
    telemetry, name = asleep.running.gateway.telemetry, "accounts/acme/deployments/main"
    assert telemetry.cold_starts == {name: 1}
    assert sum(telemetry.waits[name].counts) == 1


@pytest.mark.parametrize("noticed", [True, False])
def test_one_that_went_to_zero_since_the_routes_were_loaded_wakes_too(
    noticed: bool,
    world: World,
    closed_url: str,
    engine_url: str,
    start_gateway: Callable[..., Running],
    limits: Callable[..., Limits],
) -> None:
    base = world.add_base("acme", "llama")
    deployment = world.add_deployment("acme", "main", base, desired_replica_count=1)
    world.load("acme", "llama-1", base, deployment)
    gone = world.add_replica(deployment, closed_url, "base-uid")
    running = start_gateway(limits(snapshot_seconds=3600.0, wait_seconds=60.0, wait_look_seconds=0.02))
    with world.db.session() as session, ThreadPoolExecutor(1) as callers:
        if noticed:  # by the workers
            session.execute(delete(ReplicaRow).where(ReplicaRow.uid == gone))
        session.execute(update(DeploymentRow).values(desired_replica_count=0))
        session.commit()
        asleep = Asleep(running, world, deployment, engine_url, callers)
        asked = asleep.ask()
        wait_until(lambda: asleep.desired == 1)
        asleep.start_replica()
        answer = asked.result().json()
        assert answer["choices"][0]["text"] == "one two three", answer


def test_a_stream_is_kept_open_meanwhile_and_then_is_like_any_other(asleep: Asleep) -> None:
    asked = asleep.ask(stream=True)
    wait_until(lambda: asleep.desired == 1)
    asleep.start_replica()
    plain = asleep.running.http(asleep.world.keys["acme"]).post(
        "/v1/completions", json={**ASK, "stream": True}
    )
    answer = asked.result()
    assert answer.status_code == 200
    events = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    assert len(events) == sum(line.startswith("data: ") for line in plain.text.splitlines())
    assert events[-1] == "data: [DONE]"


def test_a_stream_gets_signs_of_life(asleep: Asleep) -> None:
    http = asleep.running.http(asleep.world.keys["acme"])
    with http.stream("POST", "/v1/completions", json={**ASK, "stream": True}) as answer:
        lines = answer.iter_lines()
        assert (answer.status_code, next(lines)) == (200, ": waiting for a replica")
        asleep.start_replica()
        assert [line for line in lines if line.startswith("data: ")][-1] == "data: [DONE]"


def test_an_error_after_the_first_sign_of_life_stands_in_the_stream(asleep: Asleep) -> None:
    http = asleep.running.http(asleep.world.keys["acme"])
    with http.stream("POST", "/v1/completions", json={**ASK, "stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        asleep.change(state="FAILED", status_message="out of memory")
        events = [line for line in lines if line.startswith("data: ")]
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert error["code"] == "DEPLOYMENT_SCALING_UP"
    assert "out of memory" in error["message"]


def test_who_does_not_want_to_wait_gets_an_answer_at_once_and_it_wakes_all_the_same(asleep: Asleep) -> None:
    answer = asleep.ask({"x-wait-for-replica": "0"}).result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "DEPLOYMENT_SCALING_UP")
    assert answer.headers["retry-after"] == "5"
    assert asleep.desired == 1


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "²"])
def test_a_wait_that_is_no_number_is_refused(asleep: Asleep, value: str) -> None:
    answer = asleep.ask({"x-wait-for-replica": value.encode()}).result()  # type: ignore[dict-item]
    assert answer.status_code == 400
    assert "x-wait-for-replica" in answer.json()["error"]["message"]


def test_one_that_is_shut_stays_shut(asleep: Asleep) -> None:
    asleep.change(max_replica_count=0)
    asleep.running.until_routed(
        lambda gateway: all(not route.deployment.most_replicas for route in gateway.snapshot.routes())
    )
    assert asleep.ask().result().status_code == 503
    assert asleep.desired == 0


def test_a_model_that_is_taken_away_meanwhile_is_not_found(asleep: Asleep) -> None:
    asked = asleep.ask()
    asleep.until_held()
    with asleep.world.db.session() as session:
        session.execute(update(DeployedModelRow).values(state="UNDEPLOYING"))
    assert asked.result().status_code == 404


def test_a_caller_who_leaves_waits_no_longer(asleep: Asleep) -> None:
    http = asleep.running.http(asleep.world.keys["acme"])
    with http.stream("POST", "/v1/completions", json={**ASK, "stream": True}):
        asleep.until_held()
    asleep.until_held(0)


def test_the_board_is_told_who_waits_and_what_is_carried(asleep: Asleep) -> None:
    asked = asleep.ask()
    gateway = asleep.running.gateway
    with Redis.from_url(gateway.settings.redis_url) as valkey:

        def told() -> Any:
            content = valkey.get(figures_key(gateway.load_report.gateway_id))
            return decode(content).get(asleep.deployment) if content else None

        wait_until(lambda: told() and told().waiting == 1)
        asleep.start_replica()
        asked.result()
        load = wait_until(lambda: told().waiting == 0 and told().tokens_generated_per_second and told())
        assert load.requests_per_second > 0
        assert load.quiet_seconds < 60
