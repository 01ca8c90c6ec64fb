"""What engines and trainers used, written to the ledger: each interval and each job once.

A replica's row says since when its serving is not in the ledger yet. Whoever writes an entry moves that
moment in the same transaction, under the deployment's lease; and an entry's uid is made of the replica and
the moment that it begins at. So a worker that dies in between has done both or neither, and one that does
it again finds the entry there.

Only what is proven is metered: an engine that answers now has answered since it was last metered, since a
replica is one engine's lifetime. What became of an engine that was lost nobody knows, and nobody pays for.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.prices import Prices
from controlplane.resources.deployments.accelerators import UNSPECIFIED
from controlplane.resources.deployments.states import Replica
from controlplane.resources.ledger.entries import DEPLOYMENT, TRAINING, Entry, write_entries
from controlplane.resources.quotas.catalog import MONTHLY_SPEND, allowances
from controlplane.resources.quotas.spend import note_suspensions
from controlplane.resources.reservations.service import active_between, reserved_at
from controlplane.resources.tables import DeploymentRow, FineTuningJobRow, LedgerRow, ModelRow, ReplicaRow
from workers.context import WorkerContext

PERIOD = timedelta(minutes=1)
"""An engine that serves on is metered this often: the longest that spend lags behind."""
NAMESPACE = uuid.UUID("6c656467-6572-4f48-8561-727468000000")
RESERVATION_LOCK = 0x52455356


@dataclass(frozen=True)
class Claim:
    """Reserved GPUs that an entry has taken, from `start` until `end`."""

    start: datetime
    end: datetime
    count: int


@dataclass(frozen=True)
class Piece:
    """A part of an interval in which the same number of a replica's GPUs were reserved ones."""

    start: datetime
    end: datetime
    reserved: int

    @property
    def ms(self) -> int:
        return round((self.end - self.start) / timedelta(milliseconds=1))


def answers(step: Any) -> bool:
    """Whether the engine answered at the look that the step was planned from."""
    return bool(step.replica.seen and step.replica.seen.healthy)


def is_metering_due(replicas: Iterable[ReplicaRow], steps: Iterable[Any], moment: datetime) -> bool:
    """Whether a replica that goes on serving is to be metered now, though nothing else changes."""
    due = {
        row.uid
        for row in replicas
        if row.state == Replica.READY and (row.serving_since is None or moment - row.serving_since >= PERIOD)
    }
    return any(step.replica.uid in due and answers(step) for step in steps)


def meter_replica(
    session: Session,
    prices: Prices,
    deployment: DeploymentRow,
    base: ModelRow,
    replica: ReplicaRow,
    moment: datetime,
    *,
    healthy: bool,
) -> None:
    """Bring the ledger up to a replica's row, which is about to be written in this transaction.

    `healthy` says that its engine answers at this moment.
    """
    moment = whole_ms(moment)
    since, serves = replica.serving_since, replica.state == Replica.READY
    if since is None:
        replica.serving_since = moment if serves else None
        return
    if serves and not healthy:
        return
    # An engine that stopped answering did so at some time since it was last metered.
    end = moment if healthy else min(moment, since + PERIOD)
    if not serves or end - since >= PERIOD:
        write_interval(session, prices, deployment, base, replica, since, end)
        replica.serving_since = max(end, since) if serves else None


def write_interval(
    session: Session,
    prices: Prices,
    deployment: DeploymentRow,
    base: ModelRow,
    replica: ReplicaRow,
    start: datetime,
    end: datetime,
) -> None:
    if end <= start:  # the clock was put back
        return
    pieces = reserved_pieces(session, deployment.account_id, replica, start, end)
    entries = [entry_of(prices, deployment, base, replica, piece) for piece in pieces]
    write_entries(session, entries)


def entry_of(
    prices: Prices, deployment: DeploymentRow, base: ModelRow, replica: ReplicaRow, piece: Piece
) -> Entry:
    kind, count = replica.accelerator_type, replica.accelerator_count
    return Entry(
        uid=uuid.uuid5(NAMESPACE, f"{replica.uid}/{piece.start.isoformat()}"),
        create_time=piece.start,
        end_time=piece.end,
        duration_ms=piece.ms,
        account_id=deployment.account_id,
        owner_id=deployment.account_id,
        product=DEPLOYMENT,
        model=base.name,
        deployment=deployment.name,
        accelerator_type=kind if count else None,
        accelerator_count=count,
        reserved_count=piece.reserved,
        cost_nanos=prices.of_replica(kind, count, piece.reserved, piece.ms),
    )


def reserved_pieces(
    session: Session, account_id: str, replica: ReplicaRow, start: datetime, end: datetime
) -> list[Piece]:
    """The interval, cut where the number of its reserved GPUs changes."""
    kind, count = replica.accelerator_type, replica.accelerator_count
    if not count or kind == UNSPECIFIED:
        return cut(start, end, 0, [], [])
    reservations = session.scalars(active_between(account_id, kind, start, end)).all()
    if not reservations:
        return cut(start, end, 0, [], [])
    # Two replicas must not take the same reserved GPU.
    key = func.hashtextextended(f"{account_id}/{kind}", RESERVATION_LOCK)
    session.execute(select(func.pg_advisory_xact_lock(key)))
    return cut(start, end, count, reservations, claims_between(session, account_id, kind, start, end))


def claims_between(
    session: Session, account_id: str, kind: str, start: datetime, end: datetime
) -> Sequence[Claim]:
    # No entry is longer than an hour: those that overlap have begun within the hour before.
    columns: Any = (LedgerRow.create_time, LedgerRow.end_time, LedgerRow.reserved_count)
    query = select(*columns).where(
        LedgerRow.account_id == account_id,
        LedgerRow.create_time > start - timedelta(hours=1),
        LedgerRow.create_time < end,
        LedgerRow.end_time > start,
        LedgerRow.accelerator_type == kind,
        LedgerRow.reserved_count > 0,
    )
    return [Claim(*row) for row in session.execute(query)]


def cut(
    start: datetime, end: datetime, count: int, reservations: Iterable[Any], claims: Sequence[Claim]
) -> list[Piece]:
    """Pieces of the interval, each within one hour, with as many reserved GPUs as are free all through it.

    Pure. The hours keep days and months apart: an entry belongs to the one in which it begins.
    """
    reservations = list(reservations)
    marks = {start, end, *hours_between(start, end)}
    for span in (*((r.start_time, r.end_time) for r in reservations), *((c.start, c.end) for c in claims)):
        marks.update(mark for mark in span if start < mark < end)
    pieces: list[Piece] = []
    for first, last in pairwise(sorted(marks)):
        taken = sum(claim.count for claim in claims if claim.start <= first < claim.end)
        reserved = min(count, max(reserved_at(reservations, first) - taken, 0))
        pieces.append(Piece(first, last, reserved))
    return joined(pieces)


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours that are alike as one, unless an hour begins between them."""
    found: list[Piece] = []
    for piece in pieces:
        before = found[-1] if found else None
        if before and before.reserved == piece.reserved and piece.start != hour_of(piece.start):
            found[-1] = Piece(before.start, piece.end, piece.reserved)
        else:
            found.append(piece)
    return found


def hours_between(start: datetime, end: datetime) -> list[datetime]:
    first = hour_of(start) + timedelta(hours=1)
    count = max(0, -(-(end - first) // timedelta(hours=1)))
    return [first + timedelta(hours=number) for number in range(count)]


def hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def whole_ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def meter_promoted(session: Session, prices: Prices, model: ModelRow) -> None:
    """What a job has trained so far, now that there is a model of its checkpoint. Its end meters the rest."""
    if "checkpoint" not in model.lineage:
        return
    _, account_id, collection, job_id = model.lineage["fine_tuning_job"].split("/")
    own = FineTuningJobRow.account_id == account_id, FineTuningJobRow.collection == collection
    query = select(FineTuningJobRow).where(*own, FineTuningJobRow.id == job_id)
    job = session.scalar(query.with_for_update())
    if job is not None:
        meter_job(session, prices, job, {"metrics": job.progress}, datetime.now(UTC))


def meter_job(
    session: Session,
    prices: Prices,
    job: FineTuningJobRow,
    result: dict[str, Any],
    moment: datetime | None = None,
) -> None:
    """What a job has trained since it was last metered, at `moment` or at its end.

    A job that fails or is cancelled costs nothing, as long as no model is made of what it has learned.
    """
    before = job.metered_tokens or 0
    trained = trained_tokens(result) - before
    if before and trained <= 0:
        return
    job.metered_tokens = before + trained
    base = str(job.settings.get("tuned_model") or job.settings.get("base_model") or "")
    entry = Entry(
        uid=uuid.uuid5(NAMESPACE, f"job/{job.uid}/{before}" if before else f"job/{job.uid}"),
        create_time=moment or job.end_time or datetime.now(UTC),
        account_id=job.account_id,
        owner_id=job.account_id,
        product=TRAINING,
        model=base,
        job=job.name,
        trained_tokens=trained,
        cost_nanos=prices.of_training(base, trained),
    )
    write_entries(session, [entry])


def trained_tokens(result: dict[str, Any]) -> int:
    """The tokens that the trainer has seen, in all epochs; what a trainer writes is not to be trusted."""
    seen = (result.get("metrics") or {}).get("tokens_seen")
    if isinstance(seen, bool) or not isinstance(seen, int | float):
        return 0
    return int(min(max(seen, 0), 2**62))


def watch_spend(context: WorkerContext) -> None:
    """Have accounts say whether they have spent what they may in this month."""
    allowance = allowances(context.settings.quotas)[MONTHLY_SPEND]
    with context.db.session() as session:
        note_suspensions(session, allowance)
