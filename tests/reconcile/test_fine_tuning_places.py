"""Places given away over all jobs at once: on a real database, in few statements, never one twice."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, event, func, insert, select, update

from controlplane.bootstrap import ensure_account
from controlplane.db import Database
from controlplane.resources.fine_tuning_jobs.queueing import turn
from controlplane.resources.quotas.catalog import RUNNING_JOBS
from controlplane.resources.quotas.tables import QuotaRow
from controlplane.resources.tables import FineTuningJobRow
from tests.reconcile.trainers import SETTINGS
from workers.context import WorkerContext
from workers.reconcile.fine_tuning.places import NUMBERED, give_places
from workers.reconcile.fine_tuning.strays import stop_stray_trainers
from workers.runtimes.base import ProcessState, TrainerObservation

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def places(settings, db, object_store, trainer):
    """Gives places away on a platform that has so many."""

    def give(count):
        few = settings.model_copy(update={"max_trainers": count})
        give_places(WorkerContext(few, db, object_store, trainer))

    return give


@pytest.fixture
def queue(db):
    """Queues jobs of an account, by their minutes and priorities."""

    def add(account_id, *minutes, priority=0, state="PENDING"):
        with db.session() as session:
            ensure_account(session, account_id, "a@x.org")
            base = {"account_id": account_id, "kind": "conversation", "settings": SETTINGS, "state": state}
            before = session.scalar(select(func.count()).select_from(FineTuningJobRow))
            values = [
                {
                    **base,
                    "id": f"{account_id}-{before + number}",
                    "model_id": f"{account_id}-{before + number}-model",
                    "queue_time": turn(NOON + timedelta(minutes=minute), priority),
                    "priority": priority,
                }
                for number, minute in enumerate(minutes)
            ]
            session.execute(insert(FineTuningJobRow), values)
            return [value["id"] for value in values]

    return add


@pytest.fixture
def jobs(db):
    """All jobs, by their ids."""

    def read():
        with db.session() as session:
            return {row.id: row for row in session.scalars(select(FineTuningJobRow))}

    return read


def at_work(rows):
    return {row.id for row in rows.values() if row.state == "RUNNING"}


def test_free_places_go_round_the_accounts(queue, places, jobs):
    many, few = queue("many", *range(9)), queue("few", 50, 51)
    places(3)
    assert at_work(jobs()) == {many[0], few[0], many[1]}
    rows = jobs()
    assert rows[many[0]].attempt == 1
    assert rows[many[0]].next_reconcile_at is not None
    assert rows[few[1]].status_message == (
        "all 3 places for trainers are taken; number 1 in the queue of accounts/few"
    )
    assert rows[many[4]].status_message.endswith("number 3 in the queue of accounts/many")
    places(4)
    assert at_work(jobs()) == {many[0], few[0], many[1], few[1]}
    assert jobs()[many[4]].status_message.endswith("number 3 in the queue of accounts/many")


def test_an_urgent_job_passes_those_of_its_own_account_only(queue, places, jobs):
    own, urgent = queue("a", 0, 1), queue("a", 30, priority=10)
    other = queue("b", 5)
    places(1)
    assert at_work(jobs()) == set(urgent)
    places(2)
    assert at_work(jobs()) == {*urgent, *other}
    places(3)
    assert at_work(jobs()) == {*urgent, *other, own[0]}


def test_an_account_at_its_quota_waits_and_says_which(queue, places, jobs, db):
    first, second = queue("a", 0, 1)
    with db.session() as session:
        session.add(QuotaRow(account_id="a", id=RUNNING_JOBS, value=1))
    places(5)
    rows = jobs()
    assert at_work(rows) == {first}
    assert (rows[second].reason, rows[second].status_message) == (
        "WAITING_FOR_QUOTA",
        f"quota {RUNNING_JOBS} is used up: 1 jobs of the account run; number 1 in the queue of accounts/a",
    )
    with db.session() as session:
        session.execute(update(QuotaRow).values(value=2))
    places(5)
    assert at_work(jobs()) == {first, second}


@pytest.mark.parametrize("state", ["RUNNING", "RE_QUEUEING", "PAUSING", "CANCELLING"])
def test_a_place_is_taken_until_its_trainer_is_gone(queue, places, jobs, state):
    queue("a", 0, state=state)
    (waiting,) = queue("b", 0)
    places(1)
    assert jobs()[waiting].state == "PENDING"


@pytest.mark.parametrize("verbs", [["delete"], ["pause", "resume"]])
def test_a_job_that_leaves_keeps_its_place_until_its_trainer_is_gone(
    running, ask, step, add_job, places, jobs, verbs
):
    step(add_job("waiting"))
    for verb in verbs:
        ask(running, verb)
    places(1)
    assert jobs()["waiting"].state == "PENDING"
    step(running), step(running)
    assert jobs()["waiting"].state == "RUNNING"


@pytest.mark.parametrize("rest", ["pause", "cancel"])
@pytest.mark.parametrize("verb", ["delete", "resume"])
def test_a_job_that_leaves_its_rest_takes_no_place(running, ask, step, queue, places, jobs, rest, verb):
    ask(running, rest)
    step(running), step(running)
    ask(running, verb)
    (waiting,) = queue("b", 0)
    places(1)
    assert jobs()[waiting].state == "RUNNING"


def test_an_account_that_deletes_its_job_comes_after_those_that_had_no_turn(queue, places, jobs, db):
    (first,) = queue("a", 0)
    places(1)
    with db.session() as session:
        session.execute(delete(FineTuningJobRow).where(FineTuningJobRow.id == first))
    again, other = queue("a", 1), queue("b", 2)
    places(1)
    assert at_work(jobs()) == set(other)
    assert jobs()[again[0]].state == "PENDING"


OUTSIDE = ["CREATING", "RESUMING", "PAUSED", "WRITING_RESULTS", "CANCELLED", "FAILED"]


@pytest.mark.parametrize("state", OUTSIDE)
def test_who_is_not_in_the_queue_takes_no_place_and_gets_none(queue, places, jobs, state):
    (other,) = queue("a", 0, state=state)
    (waiting,) = queue("b", 0)
    places(2)
    assert (jobs()[other].state, jobs()[waiting].state) == (state, "RUNNING")


def test_ten_thousand_waiting_jobs_cost_as_many_statements_as_ten(queue, places, jobs, db):
    def statements(count):
        seen = []
        note = lambda *args: seen.append(args[2])  # noqa: E731
        event.listen(db.engine, "before_cursor_execute", note)
        try:
            places(count)
        finally:
            event.remove(db.engine, "before_cursor_execute", note)
        return len(seen)

    queue("a", *range(10))
    queue("b", *range(10))
    few = statements(2)
    queue("a", *range(9_980))
    many = statements(4)
    assert many <= few <= 9
    places(4)  # Those who have come up among the first are numbered.
    # Nothing has moved: it is looked at, and nothing is written.
    assert statements(4) <= 5
    rows = jobs().values()
    assert sum("number" in row.status_message for row in rows) <= 2 * NUMBERED
    assert len(at_work(jobs())) == 4


def test_two_workers_never_give_one_place_twice(queue, settings, jobs, object_store, trainer):
    queue("a", *range(20))
    queue("b", *range(20))
    few = settings.model_copy(update={"max_trainers": 7})
    together = threading.Barrier(4)

    def work():
        database = Database(settings.database_url, pool_size=1)
        together.wait()
        for _ in range(5):
            give_places(WorkerContext(few, database, object_store, trainer))
        database.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(at_work(jobs())) == 7
    assert {row.attempt for row in jobs().values()} == {0, 1}


def test_a_job_that_is_being_cancelled_is_passed_over_and_nobody_waits_for_it(queue, places, jobs, db):
    first, second = queue("a", 0, 1)
    with db.session() as session:
        session.scalars(select(FineTuningJobRow).where(FineTuningJobRow.id == first).with_for_update()).one()
        places(1)
        assert at_work(jobs()) == set()
    places(1)
    assert at_work(jobs()) == {first}
    assert jobs()[second].state == "PENDING"


def test_trainers_that_no_row_speaks_of_are_stopped_and_removed(running, context, trainer):
    uid = str(running)
    trainer.started += [(uid, 7, {}), ("00000000-0000-0000-0000-000000000009", 8, {})]
    trainer.seen |= {
        7: TrainerObservation(ProcessState.RUNNING),
        8: TrainerObservation(ProcessState.EXITED, exit_code=0),
    }
    stop_stray_trainers(context)
    assert trainer.list_trainers() == {(uid, 1)}


def test_what_a_resting_job_left_on_its_node_is_tidied(running, step, context, trainer, db):
    with db.session() as session:
        row = session.get_one(FineTuningJobRow, running)
        row.state, row.next_reconcile_at = "PAUSED", None
    trainer.seen[1] = TrainerObservation(ProcessState.EXITED, stopped=True)
    stop_stray_trainers(context)
    with db.session() as session:
        assert session.get_one(FineTuningJobRow, running).next_reconcile_at is not None
    step(running)
    assert trainer.list_trainers() == frozenset()
