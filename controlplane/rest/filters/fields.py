"""What a list can be filtered and ordered by: for each field its type and its SQL expression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    Double,
    Interval,
    Numeric,
    String,
    Uuid,
    and_,
    case,
    cast,
    func,
    literal,
    null,
    select,
)
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import TypeEngine

ORDERED_LENGTH = 256
"""Long texts are ordered by this many characters, so that a page token, which holds them, stays short."""


class Kind(Enum):
    """The type of a field; the value says what is expected of a literal that is compared with it."""

    NAME = "a resource name or an id"
    TEXT = "a text"
    ENUM = "the name of a value"
    BOOL = "true or false"
    INT = "a whole number"
    NUMBER = "a number"
    TIME = 'a time such as "2030-01-31T12:00:00Z"'
    DURATION = 'a duration such as "600s"'
    MAP = "a key"
    ENTRY = "a text under a key"
    TEXTS = "the text of one element"
    MESSAGE = "*"
    UID = "an id of the platform's own"


SQL_TYPES: dict[Kind, TypeEngine[Any]] = {
    Kind.NAME: String(),
    Kind.TEXT: String(),
    Kind.ENTRY: String(),
    Kind.ENUM: String(),
    Kind.BOOL: Boolean(),
    Kind.INT: BigInteger(),
    Kind.NUMBER: Double(),
    Kind.TIME: DateTime(timezone=True),
    Kind.DURATION: Interval(),
    Kind.UID: Uuid(),
}


@dataclass(frozen=True, eq=False)
class Field:
    kind: Kind
    expression: ColumnElement[Any]
    nullable: bool = False
    nested: bool = False
    """Part of a message or a map: while that is unset, no comparison with it is true."""
    unique: bool = False
    """No two rows of a list have the same."""
    constant: bool = False
    values: tuple[str, ...] = ()
    """The values of a closed enum."""
    segments: tuple[Any, ...] = ()
    """Of a resource name: its segments as the rows have them, and last the expression of the whole name."""

    @property
    def order_expression(self) -> ColumnElement[Any]:
        short = getattr(self.expression.type, "length", None)
        if self.kind not in (Kind.TEXT, Kind.ENTRY) or short:
            return self.expression
        return func.left(self.expression, ORDERED_LENGTH)

    def literal(self, value: Any) -> ColumnElement[Any]:
        """A bound parameter of the field's type."""
        return literal(value, SQL_TYPES[self.kind])


def text(expression: Any, *, nullable: bool | None = None) -> Field:
    return _field(Kind.TEXT, expression, nullable)


def enum(expression: Any, values: Sequence[str] = (), *, nullable: bool | None = None) -> Field:
    """`values` closes the enum: any other is refused."""
    return replace(_field(Kind.ENUM, expression, nullable), values=tuple(values))


def boolean(expression: Any, *, nullable: bool | None = None) -> Field:
    return _field(Kind.BOOL, expression, nullable)


def integer(expression: Any, *, nullable: bool | None = None) -> Field:
    return _field(Kind.INT, expression, nullable)


def number(expression: Any, *, nullable: bool | None = None) -> Field:
    return _field(Kind.NUMBER, expression, nullable)


def time(expression: Any, *, nullable: bool | None = None) -> Field:
    return _field(Kind.TIME, expression, nullable)


def duration(expression: Any, *, nullable: bool | None = None) -> Field:
    """`expression` is an interval."""
    return _field(Kind.DURATION, expression, nullable)


def text_map(expression: Any) -> Field:
    """A JSON object of texts."""
    return _field(Kind.MAP, expression, nullable=False)


def texts(expression: Any, *, nullable: bool | None = None) -> Field:
    """A JSON array of texts."""
    return _field(Kind.TEXTS, expression, nullable)


def message(is_set: Any) -> Field:
    """A message that may be unset; `is_set` is a condition."""
    return _field(Kind.MESSAGE, is_set, nullable=False)


def constant(value: str | bool | int | float) -> Field:
    """A field that has the same value in every row."""
    kinds = {str: Kind.TEXT, bool: Kind.BOOL, int: Kind.INT, float: Kind.NUMBER}
    kind = kinds[type(value)]
    return Field(kind, literal(value, SQL_TYPES[kind]), constant=True)


def resource_name(table: Any, collection: str, *, unique: bool = True) -> Field:
    """The name of rows with `account_id` and `id`: `accounts/{account}/{collection}/{id}`."""
    return name_of(("accounts", table.account_id, collection, table.id), unique=unique)


def name_of(segments: Sequence[Any], *, unique: bool = True) -> Field:
    """A resource name of constant and row-dependent segments; lists are ordered by the last one."""
    full: Any = literal("", String())
    for number_, segment in enumerate(segments):
        full = full + ("/" if number_ else "") + segment
    return Field(Kind.NAME, segments[-1], unique=unique, segments=(*segments, full))


def related_name(table: Any, collection: str, uid: Any, condition: Any = None) -> Field:
    """The name of the row of `table` that `uid` points to; unset while it points nowhere."""
    where = table.uid == uid if condition is None else and_(table.uid == uid, condition)

    def of(expression: Any) -> Any:
        return select(expression).where(where).correlate_except(table).scalar_subquery()

    full = of("accounts/" + table.account_id + f"/{collection}/" + table.id)
    segments = ("accounts", of(table.account_id), collection, of(table.id), full)
    return Field(Kind.NAME, full, nullable=bool(getattr(uid, "nullable", True)), segments=segments)


def when(condition: Any, value: Any) -> ColumnElement[Any]:
    """`value` where the condition holds, and NULL elsewhere."""
    return case((condition, value), else_=null())


def map_entry(field: Field, key: str) -> Field:
    """What a map has under `key`, or NULL."""
    return Field(Kind.ENTRY, field.expression[key].astext, nullable=True, nested=True)


def json_text(column: Any, key: str) -> ColumnElement[Any]:
    """A text of a JSON column; empty where it is missing."""
    return func.coalesce(column[key].astext, "")


def json_integer(column: Any, key: str) -> ColumnElement[Any]:
    """A whole number of a JSON column; 0 where it is missing."""
    return func.coalesce(cast(cast(column[key].astext, Numeric), BigInteger), 0)


def json_number(column: Any, key: str) -> ColumnElement[Any]:
    return func.coalesce(cast(column[key].astext, Double), literal(0.0, Double()))


def json_boolean(column: Any, key: str) -> ColumnElement[Any]:
    return func.coalesce(cast(column[key].astext, Boolean), False)


def _field(kind: Kind, expression: Any, nullable: bool | None) -> Field:
    if nullable is None:
        nullable = bool(getattr(expression, "nullable", True))
    return Field(kind, expression, nullable=nullable)
