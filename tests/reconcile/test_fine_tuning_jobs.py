"""Fine-tuning jobs made true. The trainer is a stand-in: these tests are about the reconciler's own steps."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import func, select

from controlplane.resources.tables import FineTuningJobRow, GarbageRow, LedgerRow, ModelRow
from tests.reconcile.trainers import end_well, put_adapter, put_json, succeed
from workers.reconcile.fine_tuning import jobs
from workers.reconcile.fine_tuning.plan import MAX_CRASHES, Step
from workers.reconcile.visit import TRIES
from workers.runtimes.base import ProcessState, TrainerObservation


def test_a_new_job_gets_a_place_and_then_a_trainer(add_job, step, trainer):
    uid = add_job()
    assert step(uid).state == "RUNNING"
    step(uid)
    ((job_uid, attempt, document),) = trainer.started
    assert (job_uid, attempt) == (str(uid), 1)
    assert document["base_model"]["files"] == [{"name": "f", "size": 1, "sha256": "0" * 64}]
    assert document["output_prefix"] == f"accounts/hearth/fine-tuning-jobs/{uid}/"


def test_every_attempt_is_told_the_day_that_the_job_was_made_in_utc(add_job, step, trainer):
    late = datetime(2026, 2, 28, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    uid = add_job(create_time=late)
    step(uid), step(uid)
    trainer.seen[1] = TrainerObservation(ProcessState.LOST)
    step(uid), step(uid)
    assert [document["day"] for _, _, document in trainer.started] == ["2026-03-01"] * 2


def test_a_second_job_waits_for_the_first_ones_place(running, add_job, step, trainer):
    second = add_job("second")
    row = step(second)
    assert (row.state, row.reason) == ("PENDING", "WAITING_FOR_PLACE")
    assert len(trainer.started) == 1


def test_a_node_without_room_is_named_and_tried_again(add_job, step, trainer):
    uid = add_job()
    trainer.full = True
    step(uid)
    row = step(uid)
    assert (row.reason, row.status_message) == ("NO_CAPACITY", "no free GPU: 1 of 1 in use")
    trainer.full = False
    step(uid)
    assert len(trainer.started) == 1


def test_a_job_that_its_node_can_never_hold_fails_and_does_not_keep_its_place(add_job, step, trainer):
    uid, second = add_job(), add_job("second")
    trainer.too_small = True
    step(uid), step(uid)
    row = step(uid)
    assert (row.state, row.status_code, row.reason) == ("FAILED", "RESOURCE_EXHAUSTED", "NO_CAPACITY")
    assert "the node has 1" in row.status_message
    trainer.too_small = False
    step(second), step(second)
    assert [started for started, _, _ in trainer.started] == [str(second)]


def test_progress_is_copied_while_the_trainer_works(running, step, object_store, db):
    row = step(running)
    put_json(
        object_store, row, "progress.json", {"phase": "TRAINING", "step": 3, "max_steps": 9, "loss": 0.5}
    )
    row = step(running)
    assert (row.reason, row.progress["step"]) == ("TRAINING", 3)


def test_a_half_written_progress_is_no_progress(running, step, object_store):
    row = step(running)
    object_store.put_bytes(row.prefix + "progress.json", b'{"phase": "TRA')
    assert step(running).state == "RUNNING"


def test_an_interrupted_trainer_is_started_again_and_blamed_for_nothing(running, step, trainer):
    trainer.seen[1] = TrainerObservation(ProcessState.LOST)
    step(running)
    row = step(running)
    assert (row.attempt, row.crashes) == (2, 0)
    assert [attempt for _, attempt, _ in trainer.started] == [1, 2]


def test_a_trainer_that_keeps_dying_fails_the_job_with_its_last_words(running, step, trainer):
    for attempt in range(1, MAX_CRASHES + 2):
        trainer.seen[attempt] = TrainerObservation(
            ProcessState.EXITED, signal=9, log_tail=f"step {attempt}\nallocating"
        )
        row = step(running)
        if row.state == "RE_QUEUEING":
            step(running)
    assert (row.state, row.reason) == ("FAILED", "TRAINER_CRASHED")
    assert "signal 9" in row.status_message
    assert row.status_message.endswith("allocating")


def test_a_failed_result_fails_the_job_with_its_own_code(running, step, trainer, object_store):
    row = step(running)
    put_json(
        object_store,
        row,
        "result.json",
        {"outcome": "failed", "code": "INVALID_ARGUMENT", "reason": "TEMPLATE", "message": "row 7: bad role"},
    )
    trainer.seen[1] = TrainerObservation(ProcessState.EXITED, exit_code=1, log_tail="Traceback")
    row = step(running)
    assert (row.state, row.status_code, row.reason) == ("FAILED", "INVALID_ARGUMENT", "TEMPLATE")
    assert row.status_message.startswith("row 7: bad role")
    assert "Traceback" in row.status_message


def test_a_result_becomes_a_model_and_the_job_completes_when_it_is_ready(running, step, object_store, db):
    succeed(object_store, step(running))
    step(running)
    with db.session() as session:
        model = session.scalars(select(ModelRow).where(ModelRow.id == "job-model")).one()
        assert (model.kind, model.state, model.fine_tuning_job) == (
            "HF_PEFT_ADDON",
            "UPLOADING",
            "accounts/hearth/fineTuningJobs/job",
        )
        assert model.next_reconcile_at is not None
    assert object_store.get_bytes(model.prefix + "adapter_model.safetensors") == b"weights"
    assert step(running).state == "WRITING_RESULTS"
    with db.session() as session:
        session.get(ModelRow, model.uid).state = "READY"
    row = step(running)
    assert row.state == "COMPLETED"
    assert row.status_message == "{'train_loss': 0.01}"
    step(running)
    assert step(running).next_reconcile_at is None


@pytest.mark.parametrize("code", ["OUT_OF_LUCK", "", None, 8, ["INTERNAL"]])
def test_a_code_that_is_none_is_the_platforms_fault(running, step, trainer, object_store, code):
    result = {"outcome": "failed", "code": code, "message": "no"}
    put_json(object_store, step(running), "result.json", result)
    trainer.seen[1] = TrainerObservation(ProcessState.EXITED, exit_code=1)
    job = step(running)
    assert (job.state, job.status_code) == ("FAILED", "INTERNAL")


def test_an_adapter_that_fails_its_check_fails_the_job_and_is_removed(running, step, object_store, db):
    succeed(object_store, step(running))
    row = step(running)
    with db.session() as session:
        model = session.get(ModelRow, row.output_model_uid)
        model.reason, model.status_message = "INVALID", "rank 99 is too large"
    row = step(running)
    assert row.state == "FAILED"
    assert "rank 99 is too large" in row.status_message
    with db.session() as session:
        assert session.get(ModelRow, row.output_model_uid) is None
        assert len(session.scalars(select(GarbageRow)).all()) == 1


def test_a_model_name_taken_meanwhile_does_not_throw_the_training_away(running, step, object_store, db):
    with db.session() as session:
        session.add(ModelRow(account_id="hearth", id="job-model", kind="HF_BASE_MODEL", state="READY"))
    succeed(object_store, step(running))
    row = step(running)
    assert row.model_id.startswith("job-model-")


def test_deleting_a_running_job_stops_its_trainer_before_anything_goes(running, step, trainer, db):
    with db.session() as session:
        session.get(FineTuningJobRow, running).state = "DELETING"
    assert step(running).state == "DELETING"
    assert trainer.seen[1].stopped
    assert step(running) is None
    assert trainer.seen == {}
    with db.session() as session:
        assert [row.prefix for row in session.scalars(select(GarbageRow))] == [
            f"accounts/hearth/fine-tuning-jobs/{running}/"
        ]


def test_a_job_deleted_while_its_model_is_checked_is_metered_all_the_same(
    running, step, db, object_store, ask
):
    row = step(running)
    put_adapter(object_store, row)
    result = {"outcome": "succeeded", "metrics": {"tokens_seen": 300}}
    put_json(object_store, row, "result.json", result)
    assert step(running).state == "WRITING_RESULTS"
    ask(running, "delete")
    while step(running) is not None:
        pass
    with db.session() as session:
        assert session.scalar(select(ModelRow.id).where(ModelRow.id == "job-model"))
        assert list(session.scalars(select(LedgerRow.trained_tokens))) == [300]


def test_a_worker_that_lost_its_lease_changes_nothing(running, step, trainer, db, monkeypatch):
    observe = trainer.observe_trainer

    def slow(job_uid, attempt):
        with db.session() as session:
            row = session.get(FineTuningJobRow, running)
            row.lease_token, row.status_message = None, "somebody else's"
        return replace(observe(job_uid, attempt), state=ProcessState.LOST)

    monkeypatch.setattr(trainer, "observe_trainer", slow)
    row = step(running)
    assert (row.attempt, row.status_message) == (1, "somebody else's")


def test_an_ended_job_is_left_alone(add_job, step, trainer):
    uid = add_job(state="COMPLETED")
    assert step(uid).next_reconcile_at is None
    assert trainer.started == []


def delete_as_the_api_does(db, uid):
    with db.session() as session:
        row = session.get_one(FineTuningJobRow, uid)
        row.state, row.next_reconcile_at = "DELETING", func.now()


@pytest.mark.parametrize("trainer_state", [ProcessState.RUNNING, ProcessState.EXITED, ProcessState.LOST])
def test_a_job_deleted_in_the_middle_of_a_pass_goes(
    running, step, db, trainer, object_store, monkeypatch, trainer_state
):
    trainer.seen[1] = TrainerObservation(trainer_state)
    with db.session() as session:
        put_json(object_store, session.get_one(FineTuningJobRow, running), "progress.json", {"step": 1})
    look = jobs.load

    def delete_after_looking(*args):
        found = look(*args)
        delete_as_the_api_does(db, running)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "load", delete_after_looking)
        row = step(running)
    assert (row.state, row.lease_token) == ("DELETING", None)
    assert [step(running) for _ in range(3)][-1] is None


def test_a_job_deleted_while_its_model_is_registered_leaves_no_model_and_no_objects(
    running, step, db, object_store, monkeypatch
):
    end_well(object_store, db, running)
    copy = object_store.copy

    def delete_then_copy(*args):
        delete_as_the_api_does(db, running)
        copy(*args)

    monkeypatch.setattr(object_store, "copy", delete_then_copy)
    row = step(running)
    assert row.state == "DELETING"
    [step(running) for _ in range(2)]
    with db.session() as session:
        assert session.scalar(select(ModelRow).where(ModelRow.id == "job-model")) is None
        prefixes = {garbage.prefix for garbage in session.scalars(select(GarbageRow))}
    assert prefixes == {row.prefix, f"accounts/hearth/models/{row.output_model_uid}/"}


def test_a_model_deleted_before_its_check_has_ended_is_not_made_again(running, step, db, object_store):
    end_well(object_store, db, running)
    uid = step(running).output_model_uid
    with db.session() as session:
        session.delete(session.get_one(ModelRow, uid))
    row = step(running)
    assert (row.state, row.reason) == ("FAILED", "MODEL_DELETED")
    assert row.end_time is not None


def test_a_job_that_no_worker_can_bring_on_fails_and_its_trainer_is_stopped(
    running, step, trainer, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setitem(jobs.STEPS, Step.FOLLOW, lambda *_: 1 / 0)
        for _ in range(TRIES):
            row = step(running)
    assert (row.state, row.status_code, row.reason) == ("FAILED", "INTERNAL", "RECONCILE_FAILED")
    step(running)
    assert trainer.seen[1].stopped
    assert step(running).next_reconcile_at is None


def test_a_loss_that_is_no_number_is_shown_as_none(running, step, db, object_store):
    with db.session() as session:
        row = session.get_one(FineTuningJobRow, running)
    object_store.put_bytes(row.prefix + "progress.json", b'{"phase": "TRAINING", "loss": NaN}')
    assert step(running).progress == {"phase": "TRAINING", "loss": None}
