"""`hearth admin set-quota` and `hearth admin reservations`, on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from controlplane.bootstrap import ensure_account
from controlplane.config import Settings
from controlplane.db import Database, now
from controlplane.resources.reservations.service import a_year_after, next_midnight
from controlplane.resources.tables import QuotaRow, ReservationRow
from launcher.admin import admin

H100 = "NVIDIA_H100_80GB"


@pytest.fixture
def hearth(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """Runs `hearth admin …` on the test's own database."""
    monkeypatch.setenv("HEARTH_DATABASE_URL", settings.database_url)
    for name in ("redis_url", "s3_endpoint", "s3_access_key"):
        monkeypatch.setenv(f"HEARTH_{name.upper()}", getattr(settings, name))
    monkeypatch.setenv("HEARTH_S3_SECRET_KEY", settings.s3_secret_key.get_secret_value())
    return lambda *arguments: CliRunner().invoke(admin, [str(argument) for argument in arguments])


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url, pool_size=1)
    with database.session() as session:
        ensure_account(session, "acme", "a@acme.example")
    yield database
    database.close()


def quota(db: Database, quota_id: str) -> tuple[int | None, int | None]:
    with db.session() as session:
        row = session.get_one(QuotaRow, ("acme", quota_id))
        return row.value, row.max_value


def test_the_operator_sets_what_an_account_may_have(hearth, db):
    assert hearth("set-quota", "acme", "h100-count", 16).exit_code == 0
    assert quota(db, "h100-count") == (None, 16)
    assert hearth("set-quota", "acme", "h100-count", 8, "--value", 4).exit_code == 0
    assert quota(db, "h100-count") == (4, 8)
    # What the account's admin has set stays when only the maximum changes.
    assert hearth("set-quota", "acme", "h100-count", 32).exit_code == 0
    assert quota(db, "h100-count") == (4, 32)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("set-quota", "nobody", "models", "5"), "account nobody does not exist"),
        (("set-quota", "acme", "modles", "5"), "there is no quota modles; quotas are models, datasets"),
        (("set-quota", "acme", "models", str(2**63)), "MAX must be 0 to"),
        (("set-quota", "acme", "models", "5", "--value", "6"), "the value must be 0 to 5"),
        (
            ("reservations", "create", "acme", "--accelerator-type", "H100", "--count", "1"),
            "'H100' is none of NVIDIA_A100_80GB",
        ),
        (
            ("reservations", "create", "acme", "--accelerator-type", H100, "--count", "0"),
            "the count must be 1 to",
        ),
        (
            ("reservations", "create", "nobody", "--accelerator-type", H100, "--count", "1"),
            "account nobody does not exist",
        ),
        (("reservations", "end", "acme", "none"), "accounts/acme/reservations/none does not exist"),
    ],
)
def test_a_mistake_is_one_line(hearth, db, arguments, says):
    refused = hearth(*arguments)
    assert refused.exit_code == 1
    assert says in refused.output
    assert len(refused.output.splitlines()) == 1


def test_a_reservation_is_for_a_year_from_the_next_midnight(hearth, db):
    before = next_midnight(now())
    made = hearth("reservations", "create", "acme", "--accelerator-type", H100, "--count", 8, "--id", "ours")
    assert made.output == "accounts/acme/reservations/ours\n"
    with db.session() as session:
        row = session.scalar(select(ReservationRow))
    assert row.start_time in (before, next_midnight(now()))
    assert row.end_time == a_year_after(row.start_time)
    assert (row.reserved_count, row.accelerator_type, row.created_by) == (8, H100, "operator")
    again = hearth("reservations", "create", "acme", "--accelerator-type", H100, "--count", 8, "--id", "ours")
    assert "accounts/acme/reservations/ours already exists" in again.output


def test_a_reservation_for_times_of_ones_own(hearth, db):
    times = ("--start-time", "2030-01-31", "--end-time", "2030-02-28T12:00:00+02:00")
    create = ("reservations", "create", "acme", "--accelerator-type", H100, "--count", 2)
    assert hearth(*create, *times, "--id", "ours", "--region", "US_IOWA_1").exit_code == 0
    assert hearth("reservations", "list", "acme").output == (
        f"accounts/acme/reservations/ours 2 {H100} 2030-01-31T00:00:00Z 2030-02-28T10:00:00Z\n"
    )
    backwards = hearth(*create, "--start-time", "2030-01-31", "--end-time", "2030-01-30")
    assert "before it starts" in backwards.output
    both = hearth(*create, "--region", "US_IOWA_1", "--multi-region", "US")
    assert "for a region or for a multi-region, not for both" in both.output
    assert hearth(*create, "--start-time", "tomorrow").exit_code == 2


def test_a_reservation_can_be_ended(hearth, db):
    create = ("reservations", "create", "acme", "--accelerator-type", H100, "--count", 2, "--id", "ours")
    assert hearth(*create, "--start-time", "2020-01-01", "--end-time", "2999-01-01").exit_code == 0
    assert hearth("reservations", "end", "acme", "ours").exit_code == 0
    with db.session() as session:
        assert now() - session.scalar(select(ReservationRow.end_time)) < timedelta(minutes=1)


def test_a_year_after_a_leap_day():
    assert a_year_after(datetime(2028, 2, 29, tzinfo=UTC)) == datetime(2029, 2, 28, tzinfo=UTC)
