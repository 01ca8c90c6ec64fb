"""Metering on the whole way: rounds over deployments and jobs leave their entries in the ledger."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select, update

from controlplane.db import now
from controlplane.resources.tables import LedgerRow, ModelRow, ReplicaRow
from tests.reconcile.trainers import put_adapter, put_json


def entries_of(db, product):
    with db.session() as session:
        query = select(LedgerRow).where(LedgerRow.product == product)
        return list(session.scalars(query.order_by(LedgerRow.create_time)))


def test_rounds_over_a_deployment_meter_its_replicas(deploy, db):
    """The whole way: engines that come up, serve on for a while, and are not wanted any more."""
    story = deploy(desired_replica_count=2)
    story.come_up()
    assert [replica.serving_since is not None for replica in story.replicas()] == [True, True]
    story.round(3)
    assert entries_of(db, "deployment") == []
    with db.session() as session:
        session.execute(update(ReplicaRow).values(serving_since=now() - timedelta(seconds=90)))
    story.round(2)
    entries = entries_of(db, "deployment")
    # Two replicas of ninety seconds each; an hour may have begun meanwhile, and cut them.
    assert 180_000 <= sum(entry.duration_ms for entry in entries) < 240_000
    assert {entry.deployment for entry in entries} == {story.row().name}
    story.change(desired_replica_count=0)
    story.round(2)
    story.runtime.finish_stopping()
    story.round(2)
    assert story.replicas() == []
    assert len(entries_of(db, "deployment")) >= len(entries) + 2


def test_an_engine_that_was_lost_is_restarted_and_metered_anew(deploy, db):
    story = deploy()
    story.come_up()
    with db.session() as session:
        session.execute(update(ReplicaRow).values(serving_since=now() - timedelta(hours=3)))
    story.runtime.only().vanish()
    story.round()
    assert entries_of(db, "deployment") == []
    story.come_up()
    assert now() - story.replicas()[0].serving_since < timedelta(minutes=1)


def test_a_job_that_completes_leaves_one_entry(running, step, object_store, db):
    row = step(running)
    put_adapter(object_store, row)
    put_json(object_store, row, "result.json", {"outcome": "succeeded", "metrics": {"tokens_seen": 4321}})
    step(running)
    with db.session() as session:
        session.scalars(select(ModelRow).where(ModelRow.id == "job-model")).one().state = "READY"
    for _ in range(3):
        row = step(running)
    assert row.state == "COMPLETED"
    (entry,) = entries_of(db, "training")
    assert (entry.job, entry.trained_tokens, entry.cost_nanos) == (row.name, 4321, 0)
    assert entry.model == "accounts/hearth/models/base"


def test_a_job_that_fails_costs_nothing(running, step, object_store, db):
    row = step(running)
    put_json(object_store, row, "result.json", {"outcome": "failed", "metrics": {"tokens_seen": 4321}})
    assert step(running).state == "FAILED"
    assert entries_of(db, "training") == []
