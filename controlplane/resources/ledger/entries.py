"""Writing to the ledger: each entry once, whatever is retried, and the month's spend with it."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.resources.ledger.tables import LedgerRow, SpendRow

INFERENCE = "inference"
DEPLOYMENT = "deployment"
TRAINING = "training"
BOOKED_ON = {INFERENCE: "model", DEPLOYMENT: "deployment", TRAINING: "job"}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ledger. Whoever makes one chooses its uid so that the same use has the same uid."""

    uid: uuid.UUID
    create_time: datetime
    account_id: str
    owner_id: str
    product: str
    model: str
    deployment: str = ""
    job: str = ""
    user_id: str = ""
    key_id: str = ""
    endpoint: str = ""
    http_status: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    streamed: bool = False
    duration_ms: int = 0
    end_time: datetime | None = None
    accelerator_type: str | None = None
    accelerator_count: int | None = None
    reserved_count: int | None = None
    trained_tokens: int | None = None
    cost_nanos: int = 0

    @property
    def resource(self) -> str:
        """What the cost is booked on."""
        named: str = getattr(self, BOOKED_ON[self.product])
        return named


def insert_statement() -> TextClause:
    """One statement for any number of entries, sent as one JSON array.

    With a parameter for each value the gateway, which writes entries beside its requests, would spend many
    times as long on a batch.
    """
    dialect: Any = postgresql.dialect
    names = ", ".join(Entry.__struct_fields__)
    table = LedgerRow.__table__.c
    types = (f"{name} {table[name].type.compile(dialect())}" for name in Entry.__struct_fields__)
    return text(
        f"INSERT INTO ledger ({names}) "
        f"SELECT {names} FROM jsonb_to_recordset(CAST(:entries AS jsonb)) AS given ({', '.join(types)}) "
        "ON CONFLICT (uid) DO NOTHING RETURNING uid"
    )


INSERT = insert_statement()


def write_entries(session: Session, entries: Sequence[Entry]) -> int:
    """Add the entries that are not there yet, with what they cost; returns how many those were.

    Entries and spend are one transaction, the caller's: a batch whose commit was lost on its way back is sent
    again, and counts once.
    """
    given = {entry.uid: entry for entry in entries}
    if not given:
        return 0
    encoded = msgspec.json.encode(list(given.values())).decode()
    written = session.connection().execute(INSERT, {"entries": encoded})
    if written.rowcount == len(given):  # as always, but for a batch that is sent again
        written.close()
        new = list(given.values())
    else:
        new = [given[uid] for uid in written.scalars()]
    add_spend(session, new)
    return len(new)


def add_spend(session: Session, entries: Sequence[Entry]) -> None:
    sums: defaultdict[tuple[date, str, str], int] = defaultdict(int)
    for entry in entries:
        sums[month_of(entry.create_time), entry.account_id, entry.resource] += entry.cost_nanos
    rows = [
        {"month": month, "account_id": account_id, "resource": resource, "cost_nanos": cost}
        # In one order everywhere, so that writers of the same rows wait for each other in turn.
        for (month, account_id, resource), cost in sorted(sums.items())
        if cost
    ]
    if not rows:
        return
    statement = insert(SpendRow)
    total = SpendRow.__table__.c.cost_nanos + statement.excluded.cost_nanos
    statement = statement.on_conflict_do_update(
        index_elements=["month", "account_id", "resource"], set_={"cost_nanos": total}
    )
    session.connection().execute(statement, rows)


def month_of(moment: datetime) -> date:
    """Months begin at midnight in UTC."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return date(moment.year, moment.month, 1)
