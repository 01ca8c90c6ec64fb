"""How many hints a sweep sends: the more wait to be taken, the fewer, so that users' own need not wait."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from controlplane.config import Settings
from controlplane.queue import RECONCILE_DEPLOYMENT
from tests.reconcile.conftest import DeploymentStory
from workers.reconcile import sweep
from workers.reconcile.sweep import HINTS_AT_LEAST, HINTS_WAITING, hints_to_send

Deploy = Callable[..., DeploymentStory]


@pytest.fixture
def queue(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A queue of this test's own."""
    queue = f"test-{uuid.uuid4()}"
    monkeypatch.setitem(sweep.QUEUE_OF, RECONCILE_DEPLOYMENT, queue)
    yield queue
    with Redis.from_url(settings.redis_url) as valkey:
        valkey.delete(queue)


def test_few_hints_are_sent_while_many_wait(deploy: Deploy, settings: Settings, queue: str) -> None:
    context = deploy().context
    assert hints_to_send(context, RECONCILE_DEPLOYMENT) == HINTS_WAITING
    with Redis.from_url(settings.redis_url) as valkey:
        valkey.lpush(queue, *["hint"] * 150)
        assert hints_to_send(context, RECONCILE_DEPLOYMENT) == HINTS_WAITING - 150
        valkey.lpush(queue, *["hint"] * 150)
    assert hints_to_send(context, RECONCILE_DEPLOYMENT) == HINTS_AT_LEAST


def test_without_a_broker_to_ask_a_sweep_sends_all_the_same(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Redis.from_url("redis://127.0.0.1:1/0")
    monkeypatch.setattr(sweep, "valkey_client", lambda url: nowhere)
    assert hints_to_send(deploy().context, RECONCILE_DEPLOYMENT) == HINTS_WAITING
