"""Looks at deployments in a real database with a real Valkey's board; the engines are stand-ins."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import select

from controlplane.config import Settings
from controlplane.db import now
from controlplane.load_board import GATEWAYS, Board, GatewayLoad, encode, figures_key, known_key
from controlplane.node_pools import NodePools
from controlplane.resources.tables import DeploymentRow, ScalingRow
from tests.reconcile.conftest import DeploymentStory, RuntimeStandIn
from workers.autoscaling import loop
from workers.autoscaling.loop import scale_deployments
from workers.runtimes.vllm import REQUESTS_ON_CPU, REQUESTS_ON_GPU

GATEWAY = "a-gateway"
BUSY = GatewayLoad(concurrent=100, quiet_seconds=0)
SOME = GatewayLoad(concurrent=1, quiet_seconds=0)
WAITING = GatewayLoad(concurrent=1, waiting=1, quiet_seconds=0)


class Autoscaler:
    """The autoscaler, on a clock that a test moves, with one gateway that says what a test wants."""

    def __init__(self, settings: Settings, valkey: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings, self.valkey = settings, valkey
        self.moved = timedelta(0)
        monkeypatch.setattr(loop, "now", self.now)
        # What an engine takes depends on the machine's GPUs; here it is a machine without any.
        monkeypatch.setattr(loop, "accelerators_a_replica", lambda _row: 0)

    def now(self) -> datetime:
        return now() + self.moved

    def hear(self, loads: dict[uuid.UUID, GatewayLoad] | None) -> None:
        """What the gateway says next; None when it falls silent."""
        self.valkey.sadd(GATEWAYS, GATEWAY)
        self.valkey.set(known_key(GATEWAY), b"")
        if loads is None:
            self.valkey.delete(figures_key(GATEWAY))
        else:
            self.valkey.set(figures_key(GATEWAY), encode(loads))

    def look(self, story: DeploymentStory, load: GatewayLoad | None = None, after: float = 0) -> int:
        """The replicas wanted after one more look, so many seconds later; without a load nobody asks."""
        self.hear({} if load is None else {story.uid: load})
        return self.again(story, after)

    def again(self, story: DeploymentStory, after: float = 0) -> int:
        self.moved += timedelta(seconds=after)
        scale_deployments(story.context)
        return story.row().desired_replica_count


@pytest.fixture
def valkey(settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(settings.redis_url) as client:
        client.delete(GATEWAYS, figures_key(GATEWAY), known_key(GATEWAY))
        yield client
        client.delete(GATEWAYS, figures_key(GATEWAY), known_key(GATEWAY))


@pytest.fixture
def scaler(settings: Settings, valkey: Redis, monkeypatch: pytest.MonkeyPatch) -> Autoscaler:
    return Autoscaler(settings, valkey, monkeypatch)


@pytest.fixture
def serving(deploy: Any) -> DeploymentStory:
    """A deployment of one ready replica that may have none to three."""
    story: DeploymentStory = deploy()
    story.come_up()
    return story


def memory(story: DeploymentStory) -> ScalingRow | None:
    with story.db.session() as session:
        return session.scalar(select(ScalingRow).where(ScalingRow.deployment_uid == story.uid))


def test_lasting_load_adds_replicas_and_the_engines_follow(
    scaler: Autoscaler, serving: DeploymentStory, engines: RuntimeStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, loop.__name__)
    assert scaler.look(serving, BUSY) == 1
    assert scaler.look(serving, BUSY, after=31) == 3
    assert "accounts/hearth/deployments/d: from 1 replicas to 3: load" in caplog.text
    assert serving.come_up().state == "READY"
    assert len(engines.engines) == 3
    row = memory(serving)
    assert row is not None and row.reason == "load" and row.scale_time is not None


def test_a_quiet_deployment_goes_to_zero_and_stays_ready(
    scaler: Autoscaler, serving: DeploymentStory, engines: RuntimeStandIn
) -> None:
    assert scaler.look(serving) == 1
    assert scaler.look(serving, after=3590) == 1
    assert scaler.look(serving, after=20) == 0
    for _ in range(4):
        row = serving.round()
        engines.finish_stopping()
    assert (row.state, engines.engines) == ("READY", {})
    assert scaler.look(serving, after=100_000) == 0


def test_a_request_that_waits_wakes_it(scaler: Autoscaler, deploy: Any) -> None:
    asleep = deploy(desired_replica_count=0, state="READY")
    assert scaler.look(asleep) == 0
    assert scaler.look(asleep, WAITING) == 1


def test_one_that_is_shut_is_not_woken(scaler: Autoscaler, deploy: Any) -> None:
    shut = deploy(desired_replica_count=0, max_replica_count=0, state="READY")
    assert scaler.look(shut, WAITING) == 0


@pytest.mark.parametrize("state", ["FAILED", "DELETING", "DELETED"])
def test_what_is_failed_or_leaving_is_left_alone(scaler: Autoscaler, deploy: Any, state: str) -> None:
    assert scaler.look(deploy(desired_replica_count=0, state=state), WAITING) == 0


def test_without_a_gateway_nothing_shrinks(scaler: Autoscaler, serving: DeploymentStory) -> None:
    scaler.look(serving)
    scaler.hear(None)
    assert scaler.again(serving, after=100_000) == 1
    # The window begins anew with the first figures.
    assert scaler.look(serving, after=10) == 1
    assert scaler.look(serving, after=3599) == 1
    assert scaler.look(serving, after=2) == 0


def test_without_valkey_nothing_shrinks(
    scaler: Autoscaler, serving: DeploymentStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler.look(serving)
    monkeypatch.setattr(loop, "valkey_client", lambda _url: Redis.from_url("redis://127.0.0.1:1/0"))
    assert scaler.again(serving, after=100_000) == 1


def test_a_gateway_that_restarted_does_not_shorten_the_idle_window(
    scaler: Autoscaler, serving: DeploymentStory
) -> None:
    scaler.look(serving)
    scaler.look(serving, SOME, after=3000)
    assert scaler.look(serving, after=700) == 1  # the new gateway has seen no request; the row remembers it
    assert scaler.look(serving, after=2900) == 0


def test_the_policy_of_the_deployment_counts(scaler: Autoscaler, deploy: Any) -> None:
    policy = {"scale_up_window": "5s", "load_targets": {"requests_per_second": 2}}
    story = deploy(autoscaling_policy=policy)
    story.come_up()
    load = GatewayLoad(requests_per_second=4, quiet_seconds=0)
    assert scaler.look(story, load) == 1
    assert scaler.look(story, load, after=6) == 2


def test_a_schedule_sets_the_floor_while_it_is_on(scaler: Autoscaler, serving: DeploymentStory) -> None:
    always = {"min_replica_count": 2, "schedule": "* * * * *", "duration": "300s", "timezone": "UTC"}
    serving.change(autoscaling_policy={"scaling_schedules": {"always": always}})
    assert scaler.look(serving) == 2
    assert scaler.look(serving, after=100_000) == 2
    serving.change(autoscaling_policy={})
    assert scaler.look(serving, after=1) == 0


def test_what_the_user_scales_to_stays_until_the_load_says_otherwise(
    scaler: Autoscaler, serving: DeploymentStory
) -> None:
    scaler.look(serving, SOME)
    serving.change(desired_replica_count=3)
    assert scaler.look(serving, SOME, after=10) == 3
    assert scaler.look(serving, SOME, after=599) == 3
    assert scaler.look(serving, SOME, after=2) == 1


def test_a_change_by_somebody_else_meanwhile_wins(
    scaler: Autoscaler, serving: DeploymentStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler.look(serving, BUSY)
    read = loop.read_rows

    def read_then_changed(session: Any) -> Any:
        rows = read(session)
        serving.change(desired_replica_count=2)
        return rows

    monkeypatch.setattr(loop, "read_rows", read_then_changed)
    assert scaler.look(serving, BUSY, after=60) == 2


def test_two_workers_never_look_at_once(scaler: Autoscaler, serving: DeploymentStory) -> None:
    scaler.look(serving, BUSY)
    before = memory(serving)
    assert before is not None and before.trend["above_since"] is not None
    with serving.db.session() as session:
        assert session.scalar(select(loop.func.pg_try_advisory_xact_lock(loop.ONE_AT_A_TIME)))
        assert scaler.look(serving, BUSY, after=60) == 1
    assert scaler.again(serving) == 3


WEEK = 7 * 86_400


def test_a_deployment_that_is_unused_for_a_week_is_deleted(
    scaler: Autoscaler, deploy: Any, engines: RuntimeStandIn
) -> None:
    story: DeploymentStory = deploy(state="READY", desired_replica_count=0)
    model = story.add_model("addon")
    scaler.look(story)
    scaler.look(story, after=WEEK - 60)
    assert story.row().state == "READY"
    scaler.look(story, after=120)
    row = story.row()
    assert (row.state, row.status_message) == ("DELETING", "unused for 7 days; it can be undeleted")
    assert story.model(model).state == "UNDEPLOYING"
    assert story.round().state == "DELETED"


def test_a_request_begins_the_week_anew(scaler: Autoscaler, deploy: Any) -> None:
    story = deploy(state="READY", desired_replica_count=0)
    scaler.look(story)
    scaler.look(story, GatewayLoad(quiet_seconds=10), after=WEEK - 60)
    scaler.look(story, after=WEEK - 60)
    assert story.row().state == "READY"


@pytest.mark.parametrize(
    "values",
    [{"max_replica_count": 0}, {"min_replica_count": 1, "desired_replica_count": 1}],
    ids=["shut on purpose", "with a floor"],
)
def test_these_are_kept_however_long(scaler: Autoscaler, deploy: Any, values: dict[str, int]) -> None:
    story = deploy(**{"state": "READY", "desired_replica_count": 0, **values})
    scaler.look(story)
    scaler.look(story, after=10 * WEEK)
    assert story.row().state == "READY"


def test_unused_deployments_are_kept_where_the_platform_says_so(
    scaler: Autoscaler, deploy: Any, settings: Settings
) -> None:
    story = deploy(state="READY", desired_replica_count=0)
    object.__setattr__(story.context, "settings", settings.model_copy(update={"unused_deployment_days": 0}))
    scaler.look(story)
    scaler.look(story, after=10 * WEEK)
    assert story.row().state == "READY"


@pytest.mark.parametrize(
    ("region", "capacity"), [("EU_ICELAND_1", REQUESTS_ON_CPU), ("US_IOWA_1", REQUESTS_ON_GPU)]
)
def test_a_replica_answers_as_many_requests_as_those_of_its_region_can(region: str, capacity: int) -> None:
    gpus = {"acceleratorType": "NVIDIA_H100_80GB", "resource": "nvidia.com/gpu", "memoryGiB": 80}
    cpu, gpu = {"name": "cpu", "region": "EU_ICELAND_1"}, {"name": "h100", "region": "US_IOWA_1", **gpus}
    pools = NodePools.model_validate({"image": "engine", "pools": [cpu, gpu]})
    row = DeploymentRow(accelerator_type="ACCELERATOR_TYPE_UNSPECIFIED", placement={"region": region})
    load = loop.load_of(row, Board(), None, pools)
    assert load is not None and load.replica_capacity == capacity


def test_settled_deployments_are_read_and_not_written(scaler: Autoscaler, deploy: Any) -> None:
    stories = [deploy(f"d{number}", state="READY", desired_replica_count=0) for number in range(5)]
    scaler.look(stories[0])

    def versions() -> list[Any]:
        with stories[0].db.session() as session:
            rows = session.connection().exec_driver_sql("SELECT xmin::text FROM deployment_scaling")
            return list(rows.scalars())

    before = versions()
    scaler.look(stories[0], after=5)
    assert len(before) == 5 and versions() == before
