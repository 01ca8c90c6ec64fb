"""The meter: what engines and jobs used is in the ledger once, whatever is repeated, interrupted or lost."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text

from controlplane.bootstrap import ensure_account
from controlplane.db import Database, now
from controlplane.prices import Prices
from controlplane.resources.ledger.entries import Entry, month_of, write_entries
from controlplane.resources.reservations.service import WantedReservation, create_reservation
from controlplane.resources.tables import (
    AccountRow,
    DeploymentRow,
    FineTuningJobRow,
    LedgerRow,
    ModelRow,
    QuotaRow,
    ReplicaRow,
    SpendRow,
)
from workers.context import WorkerContext
from workers.metering import (
    PERIOD,
    Claim,
    Piece,
    cut,
    hours_between,
    meter_job,
    meter_replica,
    watch_spend,
)

NOON = datetime(2026, 3, 1, 12, 0, 10, tzinfo=UTC)
H100 = "NVIDIA_H100_80GB"
PRICES = Prices.model_validate(
    {
        "acceleratorHours": {"default": "2", H100: "4", "CPU": "0.36"},
        "reservedAcceleratorHours": {H100: "1"},
        "trainedTokens": {"default": "0.5"},
    }
)


@pytest.fixture
def sweeper(settings, db):
    return WorkerContext(settings, db, None, None)


@dataclass
class Meter:
    """One deployment whose replicas a test lets serve for a while."""

    db: Database
    deployment: DeploymentRow
    base: ModelRow

    def replica(self, gpus: int = 0, **values: object) -> uuid.UUID:
        row = ReplicaRow(
            deployment_uid=self.deployment.uid,
            state="READY",
            accelerator_type=H100 if gpus else "ACCELERATOR_TYPE_UNSPECIFIED",
            accelerator_count=gpus,
            **values,
        )
        with self.db.session() as session:
            session.add(row)
        return row.uid

    def look(self, uid: uuid.UUID, moment: datetime, *, healthy: bool = True, state: str = "READY") -> None:
        with self.db.session() as session:
            self.look_in(session, uid, moment, healthy=healthy, state=state)

    def look_in(self, session, uid, moment, *, healthy=True, state="READY") -> None:
        row = session.get_one(ReplicaRow, uid, with_for_update=True)
        row.state = state
        meter_replica(session, PRICES, self.deployment, self.base, row, moment, healthy=healthy)

    def entries(self) -> list[LedgerRow]:
        with self.db.session() as session:
            return list(session.scalars(select(LedgerRow).order_by(LedgerRow.create_time, LedgerRow.uid)))

    def served(self) -> list[tuple[float, float]]:
        """(from, until) of the entries, in seconds after noon."""
        return [
            ((row.create_time - NOON).total_seconds(), (row.end_time - NOON).total_seconds())
            for row in self.entries()
        ]

    def spent(self) -> dict[tuple[str, str], int]:
        with self.db.session() as session:
            return {
                (str(row.month), row.resource): row.cost_nanos for row in session.scalars(select(SpendRow))
            }


@pytest.fixture
def meter(db: Database) -> Meter:
    with db.session() as session:
        ensure_account(session, "hearth", "admin@hearth.example")
        base = ModelRow(account_id="hearth", id="llama", kind="HF_BASE_MODEL", state="READY")
        session.add(base)
        session.flush()
        deployment = DeploymentRow(account_id="hearth", id="main", base_model_uid=base.uid, state="READY")
        session.add(deployment)
    return Meter(db, deployment, base)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_replica_is_metered_while_it_serves_and_closed_when_it_stops(meter):
    uid = meter.replica()
    for second in (0, 30, 61, 90, 125):
        meter.look(uid, after(second))
    assert meter.served() == [(0, 61), (61, 125)]
    meter.look(uid, after(130), state="STOPPING")
    meter.look(uid, after(140), state="STOPPING")
    assert meter.served() == [(0, 61), (61, 125), (125, 130)]
    (first, *_) = meter.entries()
    assert (first.account_id, first.owner_id, first.product) == ("hearth", "hearth", "deployment")
    assert (first.model, first.deployment) == (meter.base.name, meter.deployment.name)
    assert (first.accelerator_count, first.duration_ms) == (0, 61_000)
    # 0.36 dollars an hour are 100,000 nano-dollars a second.
    assert first.cost_nanos == 6_100_000
    assert meter.spent() == {("2026-03-01", "accounts/hearth/deployments/main"): 13_000_000}


def test_gpu_seconds_are_priced_by_the_gpu(meter):
    uid = meter.replica(gpus=4)
    meter.look(uid, NOON)
    meter.look(uid, after(90), state="STOPPING")
    (entry,) = meter.entries()
    assert (entry.accelerator_type, entry.accelerator_count, entry.reserved_count) == (H100, 4, 0)
    assert entry.cost_nanos == 4 * 4 * 10**9 * 90 // 3600


def test_metering_twice_at_one_moment_counts_once(meter):
    uid = meter.replica()
    meter.look(uid, NOON)
    for _ in range(3):
        meter.look(uid, after(70))
    assert meter.served() == [(0, 70)]


def test_a_worker_that_dies_before_its_commit_has_metered_nothing(meter):
    uid = meter.replica()
    meter.look(uid, NOON)
    with pytest.raises(RuntimeError), meter.db.session() as session:
        meter.look_in(session, uid, after(70))
        raise RuntimeError("the worker dies")
    assert meter.served() == []
    meter.look(uid, after(75))
    assert meter.served() == [(0, 75)]


def test_an_entry_that_is_there_already_is_neither_written_nor_spent_again(meter):
    """Not even when the row was not moved, as after a restore of half a backup."""
    uid = meter.replica()
    meter.look(uid, NOON)
    meter.look(uid, after(70))
    before = meter.spent()
    with meter.db.session() as session:
        session.get_one(ReplicaRow, uid).serving_since = NOON
    meter.look(uid, after(80))
    assert meter.served() == [(0, 70)]
    assert meter.spent() == before


def test_workers_that_meter_at_once_wait_for_each_other(meter):
    uid = meter.replica()
    meter.look(uid, NOON)
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda second: meter.look(uid, after(second)), (70, 70, 71, 72)))
    starts = [start for start, _ in meter.served()]
    assert starts == [0]
    assert sum(meter.spent().values()) == meter.entries()[0].cost_nanos


def test_a_platform_that_was_down_pays_for_engines_that_went_on(meter):
    """The same engine answers again: it has served all the time, hour by hour."""
    uid = meter.replica()
    meter.look(uid, NOON)
    meter.look(uid, after(2 * 3600))
    assert meter.served() == [(0, 3590), (3590, 7190), (7190, 7200)]


def test_an_engine_that_was_lost_costs_no_more_than_was_seen(meter):
    uid = meter.replica()
    meter.look(uid, NOON)
    meter.look(uid, after(65))
    meter.look(uid, after(5000), healthy=False)
    assert meter.served() == [(0, 65)]


def test_an_engine_that_failed_while_nobody_looked_costs_a_minute_at_most(meter):
    uid = meter.replica()
    meter.look(uid, NOON)
    meter.look(uid, after(5000), healthy=False, state="STOPPING")
    assert meter.served() == [(0, PERIOD.total_seconds())]


def test_a_replica_that_serves_again_is_metered_from_then(meter):
    uid = meter.replica()
    meter.look(uid, NOON)
    meter.look(uid, after(20), state="LOADING")
    meter.look(uid, after(50))
    meter.look(uid, after(55), state="STOPPING")
    assert meter.served() == [(0, 20), (50, 55)]


def test_a_clock_that_is_put_back_meters_nothing_and_loses_nothing(meter):
    uid = meter.replica()
    meter.look(uid, NOON)
    meter.look(uid, after(-3600))
    assert meter.served() == []
    meter.look(uid, after(60))
    meter.look(uid, after(-10), state="STOPPING")
    assert meter.served() == [(0, 60)]


def test_a_month_ends_at_midnight(meter):
    uid = meter.replica()
    start = datetime(2026, 3, 31, 23, 59, 30, tzinfo=UTC)
    meter.look(uid, start)
    meter.look(uid, start + timedelta(seconds=70))
    march, april = meter.entries()
    assert march.end_time == april.create_time == datetime(2026, 4, 1, tzinfo=UTC)
    name = meter.deployment.name
    assert meter.spent() == {("2026-03-01", name): 3_000_000, ("2026-04-01", name): 4_000_000}


def reserve(meter, count, start=NOON - timedelta(days=1), **values):
    with meter.db.session() as session:
        wanted = WantedReservation("hearth", H100, count, start_time=start, **values)
        create_reservation(session, wanted, "operator")


def test_reserved_gpus_are_used_first_and_never_twice_at_one_moment(meter):
    reserve(meter, 6)
    first, second = meter.replica(gpus=4), meter.replica(gpus=4)
    for uid in (first, second):
        meter.look(uid, NOON)
    meter.look(first, after(60))
    meter.look(second, after(60))
    assert sorted((row.reserved_count, row.cost_nanos) for row in meter.entries()) == [
        (2, (2 * 4 + 2 * 1) * 10**9 // 60 + 1),
        (4, 4 * 10**9 // 60 + 1),
    ]
    # The first one ends: what it had is the second one's from then on, and not from before.
    meter.look(first, after(80), state="STOPPING")
    meter.look(second, after(125))
    pieces = [
        ((row.create_time - NOON).total_seconds(), row.reserved_count)
        for row in meter.entries()
        if row.uid != first and row.create_time >= after(60)
    ]
    assert sorted(pieces) == [(60, 2), (60, 4), (80, 4)]


def test_a_reservation_ends_in_the_middle_of_an_interval(meter):
    reserve(meter, 1, end_time=after(30))
    uid = meter.replica(gpus=1)
    meter.look(uid, NOON)
    meter.look(uid, after(60))
    assert [(row.reserved_count, row.duration_ms) for row in meter.entries()] == [(1, 30_000), (0, 30_000)]
    assert [row.cost_nanos for row in meter.entries()] == [8_333_333, 33_333_333]


@dataclass(frozen=True)
class Reserved:
    reserved_count: int
    start_time: datetime
    end_time: datetime


ALL_DAY = NOON - timedelta(days=1), NOON + timedelta(days=1)

# (what it is about, GPUs, reservations, claims, the pieces as (from, until, reserved))
CUTS = [
    ("no reservation", 2, [], [], [(0, 60, 0)]),
    ("more than is wanted", 2, [Reserved(8, *ALL_DAY)], [], [(0, 60, 2)]),
    ("less than is wanted", 4, [Reserved(3, *ALL_DAY)], [], [(0, 60, 3)]),
    ("two reservations add up", 4, [Reserved(1, *ALL_DAY), Reserved(2, *ALL_DAY)], [], [(0, 60, 3)]),
    ("begins within", 2, [Reserved(2, after(20), after(999))], [], [(0, 20, 0), (20, 60, 2)]),
    ("another has it all", 2, [Reserved(2, *ALL_DAY)], [Claim(after(-5), after(90), 2)], [(0, 60, 0)]),
    (
        "another has some of it for a while",
        3,
        [Reserved(3, *ALL_DAY)],
        [Claim(after(10), after(20), 2)],
        [(0, 10, 3), (10, 20, 1), (20, 60, 3)],
    ),
    ("claimed beyond what is reserved", 2, [Reserved(1, *ALL_DAY)], [Claim(*ALL_DAY, 4)], [(0, 60, 0)]),
    ("ended at the start", 2, [Reserved(2, after(-99), after(0))], [], [(0, 60, 0)]),
]


@pytest.mark.parametrize(
    ("gpus", "reservations", "claims", "pieces"), [c[1:] for c in CUTS], ids=[c[0] for c in CUTS]
)
def test_intervals_are_cut_where_reserved_gpus_change(gpus, reservations, claims, pieces):
    found = cut(NOON, after(60), gpus, reservations, claims)
    assert found == [Piece(after(start), after(end), reserved) for start, end, reserved in pieces]


def test_hours_between():
    hour = datetime(2026, 3, 1, 13, tzinfo=UTC)
    assert hours_between(NOON, hour) == []
    assert hours_between(NOON, hour + timedelta(seconds=1)) == [hour]
    assert hours_between(hour, hour + timedelta(hours=2)) == [hour + timedelta(hours=1)]


def a_job() -> FineTuningJobRow:
    return FineTuningJobRow(
        uid=uuid.uuid4(),
        collection="fineTuningJobs",
        account_id="hearth",
        id="job",
        kind="conversation",
        model_id="tuned",
        state="COMPLETED",
        settings={"base_model": "accounts/hearth/models/llama"},
        end_time=NOON,
    )


def test_a_job_is_metered_once(meter):
    job = a_job()
    for _ in range(2):
        with meter.db.session() as session:
            meter_job(session, PRICES, job, {"metrics": {"tokens_seen": 1_234_567}})
    (entry,) = meter.entries()
    assert (entry.product, entry.job, entry.trained_tokens) == ("training", job.name, 1_234_567)
    assert entry.cost_nanos == 617_283_500
    assert meter.spent() == {("2026-03-01", job.name): 617_283_500}


def test_a_job_that_goes_on_is_metered_for_what_it_has_trained_since(meter):
    job = a_job()
    for tokens in (300, 300, 1000, 900):
        with meter.db.session() as session:
            meter_job(session, PRICES, job, {"metrics": {"tokens_seen": tokens}})
    assert sorted(entry.trained_tokens for entry in meter.entries()) == [300, 700]


@pytest.mark.parametrize(
    "result", [{}, {"metrics": None}, {"metrics": {"tokens_seen": "many"}}, {"metrics": {"tokens_seen": -5}}]
)
def test_a_result_without_a_count_costs_nothing(meter, result):
    with meter.db.session() as session:
        meter_job(session, PRICES, a_job(), result)
    assert [(row.trained_tokens, row.cost_nanos) for row in meter.entries()] == [(0, 0)]


def test_a_batch_that_holds_an_entry_twice_counts_it_once(meter):
    entry = Entry(
        uid=uuid.uuid4(),
        create_time=NOON,
        account_id="hearth",
        owner_id="fireworks",
        product="inference",
        model="accounts/fireworks/models/m",
        cost_nanos=5,
    )
    with meter.db.session() as session:
        assert write_entries(session, [entry, entry]) == 1
        assert write_entries(session, [entry]) == 0
    assert meter.spent() == {("2026-03-01", "accounts/fireworks/models/m"): 5}


def state_of(meter, account_id="hearth"):
    with meter.db.session() as session:
        return session.get_one(AccountRow, account_id).suspend_state


def test_the_sweep_tells_who_has_spent_the_month(meter, sweeper):
    with meter.db.session() as session:
        ensure_account(session, "rival", "admin@rival.example")
        session.add(QuotaRow(account_id="hearth", id="monthly-spend-usd", value=3))
        for account_id in ("hearth", "rival"):
            cost = SpendRow(month=month_of(now()), account_id=account_id, resource="m", cost_nanos=3 * 10**9)
            session.add(cost)
    watch_spend(sweeper)
    assert (state_of(meter), state_of(meter, "rival")) == ("MONTHLY_SPEND_LIMIT_EXCEEDED", "UNSUSPENDED")
    with meter.db.session() as session:  # as when the next month begins
        session.execute(text("UPDATE spend SET month = month - interval '1 month'"))
    watch_spend(sweeper)
    assert state_of(meter) == "UNSUSPENDED"


def test_what_an_account_says_for_another_reason_stays(meter, sweeper):
    with meter.db.session() as session:
        session.get_one(AccountRow, "hearth").suspend_state = "FAILED_PAYMENTS"
        session.add(QuotaRow(account_id="hearth", id="monthly-spend-usd", value=0))
    watch_spend(sweeper)
    assert state_of(meter) == "FAILED_PAYMENTS"
