"""Fine-tuning jobs that are paused, that crash and go on, and what stays behind of those that stop."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.queue import RECONCILE_FINE_TUNING_JOB
from controlplane.resources.tables import FineTuningJobRow
from controlplane.storage import StorageUnavailable
from tests.reconcile.trainers import put_json
from workers import watch
from workers.reconcile.fine_tuning.plan import MAX_CRASHES
from workers.reconcile.fine_tuning.trainer import END_GRACE_SECONDS, PAUSE_GRACE_SECONDS
from workers.runtimes.base import ProcessState, TrainerObservation
from workers.training.errors import EXIT_INTERRUPTED, EXIT_OUTAGE
from workers.watch import tell_new_ends


@pytest.fixture
def row_of(db):
    def read(uid):
        with db.session() as session:
            return session.get(FineTuningJobRow, uid)

    return read


def crash(trainer, attempt, **how):
    trainer.seen[attempt] = TrainerObservation(ProcessState.EXITED, **(how or {"exit_code": 1}))


def checkpoint(object_store, row, step):
    put_json(object_store, row, f"checkpoints/checkpoint-{step}/manifest.json", {"files": {}})


def test_a_paused_job_has_the_time_for_a_checkpoint_and_a_cancelled_one_little(running, step, ask, trainer):
    ask(running, "pause")
    assert step(running).state == "PAUSING"
    assert trainer.grace[1] == PAUSE_GRACE_SECONDS
    row = step(running)
    assert (row.state, row.status_code, row.end_time) == ("PAUSED", "OK", None)
    ask(running, "resume")
    step(running), step(running)
    ask(running, "cancel")
    step(running)
    assert trainer.grace[2] == END_GRACE_SECONDS


def test_a_paused_job_gives_its_place_back_and_queues_again(running, step, ask, add_job, trainer, row_of):
    second = add_job("second")
    assert step(second).state == "PENDING"
    ask(running, "pause")
    assert [step(running).state for _ in range(2)] == ["PAUSING", "PAUSED"]
    assert row_of(second).state == "RUNNING"
    assert step(running).next_reconcile_at is None
    assert (str(running), 1) not in trainer.list_trainers()
    ask(running, "resume")
    row = step(running)
    assert (row.state, row.reason) == ("PENDING", "WAITING_FOR_PLACE")
    assert row.queue_time > row.create_time


def test_a_job_paused_in_the_queue_never_starts(running, add_job, step, ask, trainer, row_of):
    waiting = add_job("waiting")
    step(waiting)
    ask(waiting, "pause")
    assert step(waiting).state == "PAUSED"
    ask(running, "cancel")
    step(running), step(running)
    assert row_of(waiting).state == "PAUSED"
    ask(waiting, "resume")
    assert step(waiting).state == "RUNNING"


def test_why_a_job_failed_is_still_told_after_an_outage_of_the_store(
    running, step, trainer, object_store, monkeypatch
):
    said = {"outcome": "failed", "code": "INVALID_ARGUMENT", "message": "the loss diverged"}
    put_json(object_store, step(running), "result.json", said)
    crash(trainer, 1)
    assert step(running).state == "FAILED"

    def away(*_):
        raise StorageUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(object_store, "list", away)
        assert step(running).next_reconcile_at is not None
    row = step(running)
    assert row.status_message.startswith("the loss diverged")
    assert (str(running), 1) not in trainer.list_trainers()


def test_a_job_resumed_before_it_has_paused_goes_on_when_its_trainer_is_gone(running, step, ask, trainer):
    ask(running, "pause")
    ask(running, "resume")
    assert step(running).state == "RESUMING"
    assert trainer.seen[1].stopped
    assert step(running).state == "RUNNING"
    step(running)
    assert [attempt for _, attempt, _ in trainer.started] == [1, 2]


def test_a_job_resumed_before_it_has_paused_keeps_the_time_for_its_checkpoint(
    running, step, ask, trainer, monkeypatch
):
    told = []
    monkeypatch.setattr(trainer, "stop_trainer", lambda uid, attempt, grace: told.append(grace))
    ask(running, "pause")
    step(running)
    ask(running, "resume")
    step(running)
    assert told == [PAUSE_GRACE_SECONDS, PAUSE_GRACE_SECONDS]


def test_a_failure_in_the_moment_of_a_pause_is_told(running, step, ask, trainer, object_store):
    row = step(running)
    said = {"outcome": "failed", "code": "INVALID_ARGUMENT", "message": "no"}
    put_json(object_store, row, "result.json", said)
    crash(trainer, 1)
    ask(running, "pause")
    row = step(running)
    assert (row.state, row.status_code) == ("FAILED", "INVALID_ARGUMENT")


def test_a_paused_job_is_cancelled_and_deleted(running, step, ask, trainer):
    ask(running, "pause")
    step(running), step(running), step(running)
    ask(running, "cancel")
    assert step(running).state == "CANCELLED"
    ask(running, "delete")
    assert step(running) is None


def test_half_an_upload_is_deleted_with_the_stop_and_whole_ones_stay(running, step, ask, object_store):
    row = step(running)
    checkpoint(object_store, row, 20)
    halves = ("checkpoints/checkpoint-30/optimizer.pt", "adapter/adapter_model.safetensors")
    for name in ("checkpoints/checkpoint-20/optimizer.pt", "metrics.jsonl", *halves):
        object_store.put_bytes(row.prefix + name, b"x")
    upload = object_store.parts.start(row.prefix + "checkpoints/checkpoint-30/adapter_model.safetensors")
    ask(running, "cancel")
    assert [step(running).state for _ in range(2)] == ["CANCELLING", "CANCELLED"]
    left = {info.key.removeprefix(row.prefix) for info in object_store.list(row.prefix)}
    assert left >= {"checkpoints/checkpoint-20/optimizer.pt", "metrics.jsonl"}
    assert not left & set(halves)
    assert upload not in {found.upload_id for found in object_store.parts.unfinished(row.prefix)}


def test_a_stop_does_not_wait_for_the_object_store(running, step, ask, trainer, object_store, monkeypatch):
    step(running)
    ask(running, "cancel")

    def away(*_):
        raise StorageUnavailable("away")

    with monkeypatch.context() as patch:
        for name in ("list", "get_bytes", "put_bytes"):
            patch.setattr(object_store, name, away)
        step(running)
        assert trainer.seen[1].stopped
        assert step(running).state == "CANCELLING"
    assert step(running).state == "CANCELLED"


@pytest.mark.parametrize("status", [EXIT_OUTAGE, EXIT_INTERRUPTED])
def test_a_trainer_that_had_to_end_is_started_again_and_blamed_for_nothing(running, step, trainer, status):
    for attempt in range(1, MAX_CRASHES + 4):
        crash(trainer, attempt, exit_code=status)
        row = step(running)
        assert (row.state, row.crashes, row.attempt) == ("RE_QUEUEING", 0, attempt + 1)
        step(running)


def test_who_gets_on_between_its_crashes_is_not_given_up(running, step, trainer, object_store, row_of):
    for attempt in range(1, 3 * MAX_CRASHES):
        checkpoint(object_store, row_of(running), 10 * attempt)
        crash(trainer, attempt, signal=9)
        row = step(running)
        assert (row.state, row.crashes, row.crash_step) == ("RE_QUEUEING", 1, 10 * attempt)
        step(running)
    for attempt in range(3 * MAX_CRASHES, 4 * MAX_CRASHES):
        crash(trainer, attempt, signal=9)
        row = step(running)
        step(running)
    assert (row.state, row.reason) == ("FAILED", "TRAINER_CRASHED")


def test_a_job_that_runs_out_of_memory_fails_with_a_hint(running, step, trainer):
    short = {"total": 8 * 2**30, "available": 2**20, "oom_kills": 1}
    for attempt in range(1, MAX_CRASHES + 2):
        crash(trainer, attempt, signal=9, memory=short, log_tail="step 7")
        row = step(running)
        step(running)
    assert (row.state, row.status_code, row.reason) == ("FAILED", "RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
    assert "microBatchSize needs less" in row.status_message
    assert row.status_message.endswith("step 7")


def test_the_folder_of_an_attempt_goes_when_the_next_begins(running, step, trainer):
    crash(trainer, 1)
    step(running), step(running)
    assert trainer.list_trainers() == {(str(running), 2)}


def test_the_end_of_a_trainer_is_told_at_once_and_once(running, step, context, trainer, monkeypatch, row_of):
    told = []
    monkeypatch.setattr(watch, "enqueue", lambda settings, task, uid: told.append((task, uid)))
    seen = tell_new_ends(context, frozenset())
    assert (seen, told) == (frozenset(), [])
    before = row_of(running)
    crash(trainer, 1)
    seen = tell_new_ends(context, seen)
    assert told == [(RECONCILE_FINE_TUNING_JOB, running)]
    after = row_of(running)
    assert after.next_reconcile_at < before.next_reconcile_at
    assert after.update_time == before.update_time
    assert tell_new_ends(context, seen) == {(str(running), 1)}
    assert len(told) == 1


def test_no_job_is_woken_for_an_attempt_that_it_has_left_behind(running, step, context, trainer, db):
    crash(trainer, 1)
    with db.session() as session:
        row = session.scalars(select(FineTuningJobRow)).one()
        row.attempt, row.next_reconcile_at = 2, None
    tell_new_ends(context, frozenset())
    with db.session() as session:
        assert session.scalars(select(FineTuningJobRow)).one().next_reconcile_at is None
