"""A row of an account in every table, without knowing what the tables are."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Boolean, Column, Date, DateTime, Integer, Numeric, String, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from controlplane.db import Base, StorableJson, StorableText, import_tables

TEXTS = (StorableText, StorableJson, JSONB, String, Text)
KNOWN = {"state": "READY", "status_code": "OK", "suspend_state": "UNSUSPENDED", "role": "user"}
"""What columns of these names hold: their values are closed enums."""


class Rows:
    """Fills tables for one account; a row's parents are made when it needs them."""

    def __init__(self, session: Session, account_id: str, row_id: str, **values: Any) -> None:
        import_tables()
        self._session = session
        self._account_id = account_id
        self._row_id = row_id
        self._values = values
        self._made: dict[str, dict[str, Any]] = {"accounts": {"id": account_id}}

    def fill_all(self, text: str) -> None:
        """A row in every table, with `text` wherever a text can be."""
        for table in Base.metadata.sorted_tables:
            self.make(table, text)

    def make(self, table: Table, text: str | None = None) -> dict[str, Any]:
        """The row of this table; without `text` only what has no default is set."""
        if table.name not in self._made:
            row = {
                column.name: self._value(column, text)
                for column in table.columns
                if column.name in ("uid", "id", "account_id") or self._is_set(column, text)
            }
            row |= {name: value for name, value in self._values.items() if name in table.c}
            self._session.execute(table.insert().values(row))
            self._made[table.name] = row
        return self._made[table.name]

    def _is_set(self, column: Column[Any], text: str | None) -> bool:
        if text is not None and isinstance(column.type, TEXTS) and column.name != "collection":
            return True
        return not column.nullable and column.default is None and column.server_default is None

    def _value(self, column: Column[Any], text: str | None) -> Any:
        if column.name == "account_id":
            return self._account_id
        for key in column.foreign_keys:
            if column.table is key.column.table:
                return None
            return self.make(key.column.table, text)[key.column.name]
        if column.name == "id":
            return self._row_id
        if column.name in KNOWN:
            return KNOWN[column.name]
        return _of_type(column.type, text if text is not None else "text")


def _of_type(kind: Any, text: str) -> Any:
    if isinstance(kind, StorableJson | JSONB):
        return {"text": text}
    if isinstance(kind, TEXTS):
        return text[: getattr(kind, "length", None) or len(text)]
    for known, value in (
        (Boolean, False),
        (Integer, 1),
        (Numeric, 1),
        (Uuid, uuid.uuid4()),
        (DateTime, datetime.now(UTC)),
        (Date, datetime.now(UTC).date()),
    ):
        if isinstance(kind, known):
            return value
    raise TypeError(f"no value for a column of {kind!r}: say one here")
