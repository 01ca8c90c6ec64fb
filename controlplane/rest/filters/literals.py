"""Reads the literals of a filter by the type of the field that they are compared with."""

from __future__ import annotations

import difflib
import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Numeric, literal
from sqlalchemy.sql import ColumnElement

from controlplane.rest.durations import parse_duration
from controlplane.rest.filters.fields import Field, Kind
from controlplane.rest.filters.nodes import Comparison, FilterError, Value

NUMBER = re.compile(r"[+-]?[0-9]{1,100}(?:\.[0-9]{0,100})?(?:[eE][+-]?[0-9]{1,4})?")
TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)
LARGEST = 2**63 - 1


def bound(field: Field, comparison: Comparison) -> ColumnElement[Any]:
    """The comparison's value as a parameter of the field's type; FilterError when it is none of that type."""
    value = comparison.value
    try:
        match field.kind:
            case Kind.INT:
                return _integer(field, value.text)
            case Kind.NUMBER:
                return field.literal(_number(value.text))
            case Kind.BOOL:
                return field.literal(_boolean(value.text))
            case Kind.TIME:
                return field.literal(_time(value.text))
            case Kind.DURATION:
                return field.literal(_duration(value.text))
            case Kind.ENUM:
                return field.literal(_enum(field, value.text))
            case _:
                return field.literal(value.text)
    except ValueError as error:
        raise FilterError(value.column, _wrong_type(field, comparison, str(error))) from None


def _wrong_type(field: Field, comparison: Comparison, why: str) -> str:
    name = ".".join(comparison.path)
    return f"expected {why or field.kind.value} for {name}, found {shown(comparison.value)}"


def shown(value: Value) -> str:
    return f'"{value.text[:100]}"'


def _decimal(text: str) -> Decimal:
    if not NUMBER.fullmatch(text):
        raise ValueError
    return Decimal(text)


def _integer(field: Field, text: str) -> ColumnElement[Any]:
    found = _decimal(text)
    if not -LARGEST - 1 <= found <= LARGEST:
        raise ValueError("a number of at most 64 bits")
    if found != int(found):
        return literal(found, Numeric())
    return field.literal(int(found))


def _number(text: str) -> float:
    found = float(_decimal(text))
    if not math.isfinite(found):
        raise ValueError("a number of at most 64 bits")
    return found


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _time(text: str) -> datetime:
    """RFC 3339, to the microsecond; a day alone is its first moment, and no offset is UTC."""
    found = TIME.fullmatch(text)
    if found is None:
        raise ValueError
    day, clock, fraction, offset = found.groups()
    text = f"{day}T{clock or '00:00:00'}.{(fraction or '').ljust(6, '0')[:6]}{(offset or 'Z').upper()}"
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("a time that exists, in the years 1 to 9999,") from None


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except (ValueError, OverflowError):
        raise ValueError from None


def _enum(field: Field, text: str) -> str:
    if field.values and text not in field.values:
        by_case = {value.casefold(): value for value in field.values}
        near = difflib.get_close_matches(text.casefold()[:100], by_case, n=1)
        hint = f" (did you mean {by_case[near[0]]}?)" if near else ""
        raise ValueError(f"one of {', '.join(field.values)}{hint}")
    return text
