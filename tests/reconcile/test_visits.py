"""What becomes of a row at which a worker fails, dies or loses its lease; and what deletes leave behind."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from controlplane.bootstrap import ensure_account
from controlplane.db import Database, now
from controlplane.resources.tables import DatasetRow, GarbageRow
from controlplane.storage import StorageUnavailable
from workers.context import WorkerContext
from workers.reconcile import datasets, deployments
from workers.reconcile.datasets import reconcile_dataset
from workers.reconcile.sweep import KEPT_WATCH, collect_garbage
from workers.reconcile.visit import TRIES

GOOD = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'


@pytest.fixture
def db(settings):
    database = Database(settings.database_url, pool_size=4)
    yield database
    database.close()


@pytest.fixture
def context(settings, db, object_store):
    return WorkerContext(settings, db, object_store, runtime=None)


@pytest.fixture
def upload(context, db):
    """A dataset whose file is there and is to be checked."""
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        row = DatasetRow(
            account_id="hearth",
            id="d",
            state="UPLOADING",
            reason="CHECKING",
            files={"f.jsonl": {"size": len(GOOD), "sha256": ""}},
            next_reconcile_at=func.now(),
        )
        session.add(row)
    context.store.put_bytes(row.prefix + "f.jsonl", GOOD)
    return row


def touch(db, uid, **values):
    with db.session() as session:
        session.execute(update(DatasetRow).where(DatasetRow.uid == uid).values(**values))


def visited(context, uid):
    """The row after one more visit, as if its time had come."""
    touch(context.db, uid, next_reconcile_at=func.now())
    reconcile_dataset(context, uid)
    with context.db.session() as session:
        return session.get(DatasetRow, uid)


def crash(*_):
    raise KeyError("a bug")


def test_a_check_that_crashes_is_repeated_with_backoff_and_then_given_up(context, upload, monkeypatch):
    monkeypatch.setattr(datasets, "check", crash)
    row = visited(context, upload.uid)
    assert (row.reason, row.lease_token) == ("CHECKING", None)
    assert "internal error (KeyError)" in row.status_message
    assert now() < row.next_reconcile_at < now() + timedelta(seconds=5)
    for _ in range(TRIES - 1):
        row = visited(context, upload.uid)
    assert (row.state, row.reason, row.status_code) == ("UPLOADING", "INVALID", "INTERNAL")
    assert "could not be checked" in row.status_message
    assert visited(context, upload.uid).next_reconcile_at is None


def test_an_upload_that_kills_its_workers_is_given_up(context, db, upload, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    monkeypatch.setattr(datasets, "check", die)
    for _ in range(TRIES):
        with pytest.raises(Killed):
            visited(context, upload.uid)
        touch(db, upload.uid, lease_expires_at=now() - timedelta(seconds=1))
    row = visited(context, upload.uid)
    assert (row.reason, row.status_code) == ("INVALID", "INTERNAL")


def test_one_that_recovers_is_ready_and_starts_counting_anew(context, upload, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "check", crash)
        visited(context, upload.uid)
    row = visited(context, upload.uid)
    assert (row.state, row.status_message, row.lease_claims) == ("READY", "", 0)


def test_an_outage_of_the_store_is_waited_out_and_never_given_up(context, upload, monkeypatch):
    def away(*_):
        raise StorageUnavailable("no answer")

    monkeypatch.setattr(datasets, "check", away)
    for _ in range(TRIES + 2):
        row = visited(context, upload.uid)
    assert (row.reason, row.lease_claims) == ("CHECKING", 0)
    assert "object store" in row.status_message


@pytest.mark.parametrize("error", [StorageUnavailable("no answer"), KeyError("a bug"), None])
def test_who_lost_the_lease_meanwhile_changes_nothing(context, db, upload, monkeypatch, error):
    def lose(*_):
        touch(db, upload.uid, lease_token=upload.uid)
        if error:
            raise error
        return {"state": "READY"}

    monkeypatch.setattr(datasets, "check", lose)
    row = visited(context, upload.uid)
    assert (row.state, row.status_message, row.lease_token) == ("UPLOADING", "", upload.uid)


def test_a_dataset_deleted_while_it_is_checked_stays_deleted(context, db, upload, monkeypatch):
    def deleted(*_):
        with db.session() as session:
            session.delete(session.get_one(DatasetRow, upload.uid))
        return {"state": "READY"}

    monkeypatch.setattr(datasets, "check", deleted)
    assert visited(context, upload.uid) is None


def test_an_object_on_its_way_to_be_registered_outlives_a_refused_check(context, upload):
    context.store.put_bytes(upload.prefix + "f.jsonl", b"not json, but as long: ".ljust(len(GOOD), b"x"))
    context.store.put_bytes(upload.prefix + "next.jsonl", GOOD)
    assert visited(context, upload.uid).reason == "INVALID"
    assert context.store.head(upload.prefix + "next.jsonl") is not None
    touch(context.db, upload.uid, reason="CHECKING", files={"next.jsonl": {"size": len(GOOD), "sha256": ""}})
    assert visited(context, upload.uid).state == "READY"
    assert [found.key for found in context.store.list(upload.prefix)] == [upload.prefix + "next.jsonl"]


def test_findings_with_characters_that_postgres_refuses_are_kept(context, upload, monkeypatch):
    report = {"bad_rows": [{"reason": "\x00 \ud800"}], "loss": float("nan")}
    monkeypatch.setattr(datasets, "check", lambda *_: {"status_message": "a\x00b", "report": report})
    row = visited(context, upload.uid)
    assert row.status_message == "a\ufffdb"
    assert row.report == {"bad_rows": [{"reason": "\ufffd \ufffd"}], "loss": None}


def test_a_deployment_that_cannot_be_reconciled_says_so_and_is_tried_on(deploy, monkeypatch):
    story = deploy()
    monkeypatch.setattr(deployments, "observe", crash)
    story.round()  # no replica yet: its row is made
    for _ in range(TRIES + 1):
        row = story.round()
    assert (row.status_code, row.reason, row.lease_token) == ("INTERNAL", "RECONCILE_FAILED", None)
    assert row.next_reconcile_at > now() + timedelta(seconds=20)
    monkeypatch.undo()
    row = story.round()
    assert (row.status_code, row.lease_claims) == ("OK", 0)


def test_a_prefix_is_emptied_again_when_nobody_can_write_there_any_more(context, db):
    prefix = "accounts/hearth/datasets/gone/"
    with db.session() as session:
        session.add(GarbageRow(prefix=prefix))
    context.store.put_bytes(prefix + "a", b"1")
    collect_garbage(context)
    context.store.put_bytes(prefix + "late", b"1")  # through an address that was still good
    collect_garbage(context)
    with db.session() as session:
        row = session.scalars(select(GarbageRow)).one()
        assert row.due_time == row.create_time + KEPT_WATCH
        row.create_time = row.due_time = now() - KEPT_WATCH
    collect_garbage(context)
    assert list(context.store.list(prefix)) == []
    with db.session() as session:
        assert session.scalars(select(GarbageRow)).all() == []


def test_a_prefix_that_cannot_be_emptied_keeps_no_other_waiting(context, db):
    with db.session() as session:
        session.add(GarbageRow(prefix="accounts/", create_time=now() - timedelta(days=1)))
        session.add(GarbageRow(prefix="accounts/hearth/datasets/gone/"))
    context.store.put_bytes("accounts/hearth/datasets/gone/a", b"1")
    collect_garbage(context)
    assert list(context.store.list("accounts/hearth/")) == []
    with db.session() as session:
        assert len(session.scalars(select(GarbageRow).where(GarbageRow.due_time > now())).all()) == 2
