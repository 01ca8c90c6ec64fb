"""Leases: one owner at a time, guarded writes, and wishes that arrive while the row is held."""

import time
from datetime import timedelta

import pytest
from sqlalchemy import func, update

from controlplane.bootstrap import ensure_account
from controlplane.db import Database
from controlplane.resources.tables import DatasetRow
from workers.reconcile.lease import LeaseLost, claim_lease, due_uids, kept_alive

LONG = timedelta(minutes=5)
OVER = timedelta(seconds=-1)


@pytest.fixture
def db(settings):
    database = Database(settings.database_url, pool_size=2)
    yield database
    database.close()


@pytest.fixture
def uid(db):
    """A row that is due."""
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        row = DatasetRow(account_id="hearth", id="d", state="UPLOADING", next_reconcile_at=func.now())
        session.add(row)
        session.flush()
        return row.uid


def touch(db, uid, **values):
    with db.session() as session:
        session.execute(update(DatasetRow).where(DatasetRow.uid == uid).values(**values))


def read(db, uid):
    with db.session() as session:
        return session.get_one(DatasetRow, uid)


def until(condition):
    """Look until the condition holds; fail when it never does."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("the condition never held")


def test_a_row_has_one_owner_at_a_time(db, uid):
    assert claim_lease(db, DatasetRow, uid, LONG) is not None
    assert claim_lease(db, DatasetRow, uid, LONG) is None
    with db.session() as session:
        assert due_uids(session, DatasetRow, 10) == []


def test_a_row_that_is_not_due_is_not_claimed(db, uid):
    for moment in (None, func.now() + timedelta(hours=1)):
        touch(db, uid, next_reconcile_at=moment)
        assert claim_lease(db, DatasetRow, uid, LONG) is None


def test_an_expired_lease_is_taken_over_and_its_holder_changes_nothing(db, uid):
    stale = claim_lease(db, DatasetRow, uid, OVER)
    with db.session() as session:
        assert due_uids(session, DatasetRow, 10) == [uid]
    fresh = claim_lease(db, DatasetRow, uid, LONG)
    with pytest.raises(LeaseLost), db.session() as session:
        stale.guard(session).display_name = "stale"
    with db.session() as session:
        stale.release(session, None)
        fresh.guard(session).display_name = "fresh"
    assert read(db, uid).display_name == "fresh"
    assert read(db, uid).lease_token == fresh.token


def test_a_released_row_is_due_again_when_it_said(db, uid):
    lease = claim_lease(db, DatasetRow, uid, LONG)
    with db.session() as session:
        lease.release(session, timedelta(0))
    assert claim_lease(db, DatasetRow, uid, LONG) is not None


def test_what_is_asked_for_while_a_row_is_held_is_not_forgotten(db, uid):
    lease = claim_lease(db, DatasetRow, uid, LONG)
    touch(db, uid, next_reconcile_at=func.now())
    with db.session() as session:
        lease.release(session, None)
    assert claim_lease(db, DatasetRow, uid, LONG) is not None


def test_a_lease_is_renewed_while_slow_work_goes_on(db, uid):
    lease = claim_lease(db, DatasetRow, uid, timedelta(seconds=1.5))
    first = read(db, uid).lease_expires_at
    with kept_alive(db, lease):
        until(lambda: read(db, uid).lease_expires_at > first)
    assert claim_lease(db, DatasetRow, uid, LONG) is None


def test_leases_come_and_go_without_the_resource_having_changed(db, uid):
    before = read(db, uid).update_time
    lease = claim_lease(db, DatasetRow, uid, LONG)
    with db.session() as session:
        lease.renew(session)
        lease.release(session, timedelta(0))
    assert read(db, uid).update_time == before
