"""The numbers are those of what happened, and no label grows without end."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.core import Metric

from controlplane.db import Database
from controlplane.observability.logs import FACTS, facts
from controlplane.observability.metrics import OTHER, BoundedNames
from controlplane.queue import REQUEST_ID, SENT_AT, say_where_from
from controlplane.resources.tables import DeploymentRow, ReplicaRow
from controlplane.storage import StorageUnavailable
from tests.gateway.world import World
from workers.observability.numbers import (
    FRESH_SECONDS,
    LEASES,
    MOST_DEPLOYMENTS,
    ROUNDS,
    Looks,
    Seen,
    bounded,
)
from workers.observability.platform import Rows, age_of
from workers.reconcile.visit import visit


def samples(families: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def deployment(database: Database) -> uuid.UUID:
    """`acme/main`, which is to have three replicas, and has one that serves and one that comes."""
    world = World(database)
    world.add_account("acme")
    made = world.add_deployment("acme", "main", world.add_base("acme", "llama"), desired_replica_count=3)
    with database.session() as session:
        for state in ("READY", "LOADING", "FAILED"):
            session.add(
                ReplicaRow(deployment_uid=made, state=state, accelerator_type="H100", accelerator_count=2)
            )
    return made


def test_the_platforms_numbers_are_those_of_its_rows(database, deployment):
    found = samples(Rows(database).collect())
    name = "accounts/acme/deployments/main"
    assert found[("hearth_platform_deployment_replicas_desired", name)] == 3
    assert found[("hearth_platform_deployment_replicas_ready", name)] == 1
    assert found[("hearth_platform_replicas", "LOADING")] == 1
    assert found[("hearth_platform_deployments", "READY")] == 1
    assert found[("hearth_platform_accelerators_used", "H100")] == 4
    assert found[("hearth_platform_rows_due", "deployments")] == 0
    with database.session() as session:
        session.get_one(DeploymentRow, deployment).next_reconcile_at = datetime.now(UTC) - timedelta(hours=1)
    assert samples(Rows(database).collect())[("hearth_platform_rows_due", "deployments")] == 1


def test_without_postgres_there_are_no_numbers_instead_of_zeros():
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/none", pool_size=1)
    assert samples(Rows(away).collect()) == {("hearth_platform_database_reachable",): 0.0}
    away.close()


def raises(error: Exception) -> Any:
    def work(*_: object) -> None:
        assert LEASES.labels("deployments")._value.get() == 1
        assert FACTS.get()["resource"].startswith("deployments ")
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "outcome"),
    [
        (lambda *_: None, "done"),
        (raises(StorageUnavailable("away")), "store_away"),
        (raises(ZeroDivisionError()), "failed"),
    ],
    ids=["done", "store_away", "failed"],
)
def test_a_visit_is_counted_by_how_it_ended(database, deployment, work, outcome):
    with database.session() as session:
        session.get_one(DeploymentRow, deployment).next_reconcile_at = datetime.now(UTC)
    before = ROUNDS.labels("deployments", outcome)._value.get()
    assert visit(SimpleNamespace(db=database), DeploymentRow, deployment, work, lambda row, cause: False)
    assert ROUNDS.labels("deployments", outcome)._value.get() == before + 1
    assert LEASES.labels("deployments")._value.get() == 0


def test_the_autoscalers_look_is_forgotten_when_another_worker_may_have_had_the_next():
    now = [100.0]
    looks = Looks(lambda: now[0])
    looks.tell([Seen("d", desired=2, demand=3), Seen("e", desired=1, demand=None)])
    fresh = samples(looks.collect())
    assert fresh[("hearth_worker_autoscaler_demand_replicas", "d")] == 3
    assert ("hearth_worker_autoscaler_demand_replicas", "e") not in fresh
    now[0] += FRESH_SECONDS
    assert samples(looks.collect()) == {}


def test_what_is_more_than_a_label_may_have_is_other():
    names = BoundedNames(most=2)
    assert [names.of(name) for name in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
    numbers = bounded([(f"d{at}", 1) for at in range(MOST_DEPLOYMENTS + 7)])
    assert len(numbers) == MOST_DEPLOYMENTS + 1
    assert numbers[-1] == ([OTHER], 7)


def test_a_message_says_when_it_was_sent_and_which_request_has_caused_it():
    headers: dict[str, Any] = {}
    with facts(request_id="r-1"):
        say_where_from(headers=headers)
    assert headers[REQUEST_ID] == "r-1"
    assert age_of(json.dumps({"headers": {SENT_AT: time.time() - 60}})) == pytest.approx(60, abs=5)
    assert [age_of(none) for none in (None, b"no message", b"{}")] == [0, 0, 0]
