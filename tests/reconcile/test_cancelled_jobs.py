"""Fine-tuning jobs that are cancelled and resumed, and what else may happen in the same moment."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import func, select

from controlplane.errors import ApiError
from controlplane.resources.fine_tuning_jobs.states import PLACED
from controlplane.resources.fine_tuning_jobs.tables import SUPERVISED_FINE_TUNING_JOBS
from controlplane.resources.tables import FineTuningJobRow, GarbageRow, ModelRow
from tests.reconcile.trainers import end_well, put_json
from workers.reconcile.fine_tuning import jobs
from workers.reconcile.lease import claim_lease
from workers.reconcile.visit import LEASE
from workers.runtimes.base import ProcessState, TrainerObservation

STOPPED = TrainerObservation(ProcessState.EXITED, exit_code=143, stopped=True)


@pytest.fixture
def slow_stop(trainer, monkeypatch):
    """Trainers that go on, writing a checkpoint, until the test lets them end."""
    told = []
    monkeypatch.setattr(trainer, "stop_trainer", lambda uid, attempt, grace: told.append(attempt))
    return told


def test_a_running_job_is_cancelled_when_its_trainer_has_ended(running, step, ask, trainer, slow_stop):
    ask(running, "cancel")
    for _ in range(2):
        assert step(running).state == "CANCELLING"
    assert slow_stop == [1, 1]
    trainer.seen[1] = STOPPED
    row = step(running)
    assert (row.state, row.status_code) == ("CANCELLED", "CANCELLED")
    assert row.end_time is not None
    assert step(running).next_reconcile_at is None
    assert trainer.list_trainers() == frozenset()


def test_its_place_is_free_only_when_its_trainer_is_gone(
    running,
    step,
    ask,
    add_job,
    trainer,
    slow_stop,
):
    second = add_job("second")
    ask(running, "cancel")
    assert step(second).state == "PENDING"
    trainer.seen[1] = STOPPED
    step(running)
    assert step(second).state in PLACED


def test_a_job_that_never_ran_is_cancelled_in_one_pass(add_job, step, ask, trainer):
    uid = add_job()
    ask(uid, "cancel")
    assert step(uid).state == "CANCELLED"
    assert trainer.started == []


def test_a_resumed_job_gets_a_new_attempt_that_goes_on(running, step, ask, trainer):
    ask(running, "cancel")
    step(running), step(running)
    ask(running, "resume")
    row = step(running)
    assert (row.state, row.attempt, row.end_time) == ("RUNNING", 2, None)
    step(running)
    documents = [document for _, _, document in trainer.started]
    assert len(documents) == 2
    assert documents[0] == documents[1]  # the same place, so that the trainer finds its checkpoints


def test_the_failure_of_the_last_attempt_is_forgotten(running, step, ask, trainer, object_store):
    row = step(running)
    put_json(object_store, row, "result.json", {"outcome": "failed", "code": "RESOURCE_EXHAUSTED"})
    trainer.seen[1] = TrainerObservation(ProcessState.EXITED, exit_code=1)
    assert step(running).state == "FAILED"
    ask(running, "resume")
    states = [step(running).state for _ in range(3)]
    assert states == ["RESUMING", "RUNNING", "RUNNING"]
    assert object_store.head(row.prefix + "result.json") is None
    assert [attempt for _, attempt, _ in trainer.started] == [1, 2]


def test_a_resumed_job_waits_until_a_trainer_that_was_given_up_is_gone(
    running,
    step,
    ask,
    db,
    trainer,
    slow_stop,
):
    with db.session() as session:
        row = session.get_one(FineTuningJobRow, running)
        row.state, row.status_code, row.reason = "FAILED", "INTERNAL", "RECONCILE_FAILED"
    ask(running, "resume")
    assert step(running).state == "RESUMING"
    assert slow_stop == [1]
    trainer.seen[1] = STOPPED
    assert step(running).attempt == 2


def test_work_done_before_the_cancel_is_not_done_again(running, step, ask, db, object_store):
    """The trainer had ended well, and the cancel came before anybody looked."""
    end_well(object_store, db, running)
    ask(running, "cancel")
    assert [step(running).state for _ in range(2)] == ["CANCELLING", "CANCELLED"]
    with db.session() as session:
        assert session.scalar(select(func.count()).select_from(ModelRow)) == 1  # the base
    ask(running, "resume")
    assert [step(running).state for _ in range(2)] == ["RUNNING", "WRITING_RESULTS"]


def test_a_cancel_while_the_model_is_copied_wins_and_leaves_no_model(
    running,
    step,
    ask,
    db,
    object_store,
    monkeypatch,
):
    end_well(object_store, db, running)
    copy = object_store.copy

    def cancel_then_copy(*args):
        ask(running, "cancel")
        copy(*args)

    with monkeypatch.context() as patch:
        patch.setattr(object_store, "copy", cancel_then_copy)
        row = step(running)
    assert (row.state, row.lease_token) == ("CANCELLING", None)
    [step(running) for _ in range(2)]
    copied = f"accounts/hearth/models/{row.output_model_uid}/"
    ask(running, "resume")
    [step(running) for _ in range(2)]
    with db.session() as session:
        model = session.scalars(select(ModelRow).where(ModelRow.id == "job-model")).one()
        assert copied != model.prefix
        assert copied in set(session.scalars(select(GarbageRow.prefix)))


def test_a_cancel_after_the_model_was_made_is_refused(running, step, ask, db, object_store):
    end_well(object_store, db, running)
    assert step(running).state == "WRITING_RESULTS"
    with pytest.raises(ApiError, match="JOB_STATE_WRITING_RESULTS"):
        ask(running, "cancel")


@pytest.mark.parametrize("seen", [ProcessState.RUNNING, ProcessState.EXITED, ProcessState.LOST])
def test_a_cancel_in_the_middle_of_a_pass_is_not_overwritten(
    running,
    step,
    ask,
    trainer,
    monkeypatch,
    seen,
):
    trainer.seen[1] = TrainerObservation(seen)
    look = jobs.load

    def cancel_after_looking(*args):
        found = look(*args)
        ask(running, "cancel")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "load", cancel_after_looking)
        row = step(running)
    assert (row.state, row.lease_token) == ("CANCELLING", None)
    assert [step(running).state for _ in range(2)][-1] == "CANCELLED"


def test_a_cancel_while_a_worker_is_away_waits_for_its_lease(running, step, ask, db, trainer):
    with db.session() as session:
        session.get_one(FineTuningJobRow, running).next_reconcile_at = func.now()
    lease = claim_lease(db, FineTuningJobRow, running, LEASE)
    ask(running, "cancel")
    assert step(running).state == "CANCELLING"
    assert trainer.seen[1].state is ProcessState.RUNNING  # nobody else may touch it
    with db.session() as session:
        lease.release(session, None)
    with db.session() as session:
        # The worker that was away saw nothing to do; what the cancel asked for is kept.
        assert session.get_one(FineTuningJobRow, running).next_reconcile_at is not None
    assert [step(running).state for _ in range(2)] == ["CANCELLING", "CANCELLED"]


def test_an_attempt_that_was_about_to_start_is_told_not_to(add_job, step, ask, trainer):
    """A worker that was paused before it started the trainer may wake up after the cancel."""
    uid = add_job()
    assert step(uid).state == "RUNNING"
    ask(uid, "cancel")
    assert step(uid).state == "CANCELLED"
    assert trainer.seen[1].stopped


def test_a_job_deleted_while_it_is_cancelled_goes(running, step, ask, trainer, slow_stop):
    ask(running, "cancel")
    step(running)
    ask(running, "delete")
    assert step(running).state == "DELETING"
    trainer.seen[1] = STOPPED
    assert step(running) is None


def test_a_job_that_stopped_early_says_so(running, step, db, object_store):
    end_well(object_store, db, running)
    with db.session() as session:
        row = session.get_one(FineTuningJobRow, running)
    result = {"outcome": "succeeded", "metrics": {}, "report": {"stopped_early": True}}
    put_json(object_store, row, "result.json", result)
    uid = step(running).output_model_uid
    with db.session() as session:
        session.get_one(ModelRow, uid).state = "READY"
    assert step(running).state == "EARLY_STOPPED"


def test_a_job_whose_result_is_lost_after_its_model_was_made_completes_with_it(
    running,
    step,
    db,
    object_store,
):
    end_well(object_store, db, running)
    row = step(running)
    object_store.delete(row.prefix + "result.json")
    with db.session() as session:
        session.get_one(ModelRow, row.output_model_uid).state = "READY"
    row = step(running)
    assert (row.state, row.status_message) == ("COMPLETED", "{'train_loss': 0.01}")


def test_a_model_names_its_job_in_the_jobs_own_collection(add_job, step, db, object_store):
    uid = add_job(collection=SUPERVISED_FINE_TUNING_JOBS)
    step(uid), step(uid)
    end_well(object_store, db, uid)
    step(uid)
    with db.session() as session:
        model = session.scalars(select(ModelRow).where(ModelRow.id == "job-model")).one()
    assert model.fine_tuning_job == "accounts/hearth/supervisedFineTuningJobs/job"


def test_a_lost_trainer_is_shown_as_queued_again_and_keeps_its_place(running, step, trainer, add_job):
    trainer.seen[1] = TrainerObservation(ProcessState.LOST)
    row = step(running)
    assert row.state == "RE_QUEUEING"
    assert row.state in PLACED
    assert step(add_job("second")).state == "PENDING"
    assert [step(running).state for _ in range(2)] == ["RE_QUEUEING", "RUNNING"]


def test_the_last_progress_is_kept(running, step, ask, object_store, trainer, slow_stop):
    row = step(running)
    ask(running, "cancel")
    step(running)
    object_store.put_bytes(row.prefix + "progress.json", json.dumps({"step": 7, "max_steps": 9}).encode())
    trainer.seen[1] = STOPPED
    assert step(running).progress == {"step": 7, "max_steps": 9}
