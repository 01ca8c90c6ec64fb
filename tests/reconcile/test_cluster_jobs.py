"""Fine-tuning jobs whose trainers a cluster runs, which may be away or lose a node. It is a stand-in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.db import now
from controlplane.resources.tables import FineTuningJobRow
from tests.reconcile.trainers import TrainerStandIn, put_json
from workers.reconcile.fine_tuning.jobs import reconcile_fine_tuning_job
from workers.reconcile.fine_tuning.strays import stop_stray_trainers
from workers.reconcile.fine_tuning.trainer import PAUSE_GRACE_SECONDS
from workers.reconcile.visit import TRIES
from workers.runtimes.base import ProcessState, RuntimeUnavailable, TrainerObservation, Waiting

UNPLACED = TrainerObservation(
    ProcessState.RUNNING,
    reason=Waiting.NO_CAPACITY,
    message="no node has room: 3 Insufficient cpu",
)
NODE_LOST = TrainerObservation(
    ProcessState.RUNNING, reason=Waiting.NODE_LOST, message="the node one does not answer"
)


@pytest.fixture
def away(trainer, monkeypatch):
    """Has the cluster be away, until it is called."""

    def refuse(*_):
        raise RuntimeUnavailable("the API server does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "observe_trainer", refuse)
        patch.setattr(trainer, "list_trainers", refuse)
        yield patch.undo


def test_what_a_trainer_waits_for_is_told_and_forgotten_when_it_is_at_work(running, step, trainer):
    trainer.seen[1] = UNPLACED
    row = step(running)
    assert (row.state, row.reason, row.status_message) == ("RUNNING", "NO_CAPACITY", UNPLACED.message)
    trainer.seen[1] = TrainerObservation(ProcessState.RUNNING)
    row = step(running)
    assert (row.state, row.reason, row.status_message) == ("RUNNING", "", "")


def test_a_lost_node_is_told_beside_the_progress_made_so_far(running, step, trainer, object_store):
    put_json(object_store, step(running), "progress.json", {"phase": "TRAINING", "step": 3})
    trainer.seen[1] = NODE_LOST
    row = step(running)
    assert (row.reason, row.progress["step"], len(trainer.started)) == ("NODE_LOST", 3, 1)
    trainer.seen[1] = TrainerObservation(ProcessState.RUNNING)
    assert step(running).reason == "TRAINING"


def test_a_cancel_that_waits_for_a_lost_node_says_so(running, step, ask, trainer, monkeypatch):
    monkeypatch.setattr(trainer, "stop_trainer", lambda *_: None)
    trainer.seen[1] = NODE_LOST
    ask(running, "cancel")
    row = step(running)
    assert (row.state, row.reason, row.status_message) == ("CANCELLING", "NODE_LOST", NODE_LOST.message)


def test_however_long_the_cluster_is_away_no_job_is_given_up(running, step, away, context, trainer):
    for _ in range(TRIES + 1):
        row = step(running)
    assert (row.state, row.reason) == ("RUNNING", "CLUSTER_UNAVAILABLE")
    assert row.status_message == "the API server does not answer"
    stop_stray_trainers(context)  # nor does a sweep end at it
    away()
    assert step(running).reason == ""
    assert [attempt for _, attempt, _ in trainer.started] == [1]


@pytest.fixture
def cluster():
    return TrainerStandIn()


def test_a_trainer_from_before_there_was_a_cluster_ends_before_another_begins_there(
    running, step, trainer, cluster, context, monkeypatch
):
    with_cluster = replace(context, jobs=cluster)
    monkeypatch.setattr(trainer, "remove_trainer", lambda uid, attempt: trainer.seen.get(attempt) is None)
    assert look(with_cluster, running).reason == "NO_CAPACITY"
    assert "on the worker's own machine" in look(with_cluster, running).status_message
    stop_stray_trainers(with_cluster)
    assert trainer.grace == {1: PAUSE_GRACE_SECONDS}  # it writes a checkpoint
    trainer.seen.clear()
    look(with_cluster, running)
    assert [attempt for _, attempt, _ in cluster.started] == [1]


def look(context, uid):
    with context.db.session() as session:
        session.get_one(FineTuningJobRow, uid).next_reconcile_at = now()
    reconcile_fine_tuning_job(context, uid)
    with context.db.session() as session:
        return session.get_one(FineTuningJobRow, uid)
