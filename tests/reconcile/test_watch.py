"""What clusters tell is looked at at once: by whom it is about, and by nobody else."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from controlplane.db import Database, now
from controlplane.resources.tables import DeploymentRow
from tests.reconcile.conftest import DeploymentStory
from workers import watch
from workers.reconcile.deployments import bring_on_deployment
from workers.reconcile.fleets import CLUSTER_UNAVAILABLE
from workers.reconcile.lease import claim_lease
from workers.runtimes.base import FleetNews, FleetObservation
from workers.watch import start_watch, tell_news

LATER = timedelta(minutes=5)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[uuid.UUID]]:
    told: list[uuid.UUID] = []
    monkeypatch.setattr(watch, "enqueue", lambda settings, task, uid: told.append(uid))
    yield told
    told.clear()


@pytest.fixture
def resting(deploy: Callable[..., DeploymentStory]) -> Callable[..., DeploymentStory]:
    def make(deployment_id: str = "chat", **values: Any) -> DeploymentStory:
        story = deploy(deployment_id)
        story.change(**{"state": "READY", "next_reconcile_at": now() + LATER, **values})
        return story

    return make


def about(*stories: DeploymentStory) -> FleetNews:
    return FleetNews(frozenset(str(story.uid) for story in stories))


def is_due(story: DeploymentStory) -> bool:
    due = story.row().next_reconcile_at
    return due is not None and due <= now()


def test_those_that_the_news_are_about_are_due_and_others_rest(resting: Any, told: list[uuid.UUID]) -> None:
    changed, quiet, shut = resting(), resting("quiet"), resting("shut", next_reconcile_at=None)
    tell_news(changed.context, about(changed, shut))
    assert (is_due(changed), is_due(quiet), is_due(shut)) == (True, False, False)
    assert told == [changed.uid]


def test_a_change_that_is_told_during_a_round_is_looked_at_after_it(
    resting: Any, told: list[uuid.UUID], db: Database
) -> None:
    story = resting(next_reconcile_at=now())
    lease = claim_lease(db, DeploymentRow, story.uid, LATER)
    assert lease is not None
    tell_news(story.context, about(story))
    with db.session() as session:
        lease.release(session, LATER)
    assert is_due(story)


def test_whoever_finishes_a_round_does_the_next_one_that_was_asked_for_meanwhile(
    resting: Any, told: list[uuid.UUID]
) -> None:
    story, looks = resting(next_reconcile_at=now(), desired_replica_count=0), []

    class Changing:
        def observe(self, spec: object) -> FleetObservation:
            looks.append(spec)
            if len(looks) == 1:
                tell_news(story.context, about(story))
            return FleetObservation({}, settled=True, exists=True)

    bring_on_deployment(replace(story.context, fleets=Changing()), story.uid)
    assert len(looks) == 2
    assert not is_due(story)


def test_an_accounts_namespace_is_seen_to_by_one_of_its_deployments(
    resting: Any, told: list[uuid.UUID]
) -> None:
    one, other, gone = resting(), resting("other"), resting("gone", state="DELETING")
    tell_news(one.context, FleetNews(accounts=frozenset({"hearth", "unknown"})))
    assert is_due(one) != is_due(other)
    assert not is_due(gone)
    assert len(told) == 1


def test_when_the_cluster_is_back_those_that_missed_it_are_looked_at(
    resting: Any, told: list[uuid.UUID]
) -> None:
    waiting, serving = resting(reason=CLUSTER_UNAVAILABLE), resting("serving")
    tell_news(waiting.context, FleetNews(returned=True))
    assert (is_due(waiting), is_due(serving)) == (True, False)


def test_news_outlast_an_outage_of_the_database(resting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    story, heard, enough = resting(), [], threading.Event()
    news = [about(story), FleetNews(accounts=frozenset({"hearth"}))]

    class Telling:
        def take_news(self) -> FleetNews:
            return news.pop(0) if news else FleetNews()

    def tell(context: object, told: FleetNews) -> None:
        heard.append(told)
        if len(heard) == 4:
            enough.set()
        if len(heard) < 3:
            raise OperationalError("UPDATE", {}, OSError("the server is starting"))

    monkeypatch.setattr(watch, "tell_news", tell)
    monkeypatch.setattr(watch, "tell_new_ends", lambda context, told: told)
    stopping = start_watch(lambda: replace(story.context, fleets=Telling()))
    assert enough.wait(30)
    stopping.set()
    assert heard[2] == about(story) | FleetNews(accounts=frozenset({"hearth"}))
    assert heard[3] == FleetNews()
