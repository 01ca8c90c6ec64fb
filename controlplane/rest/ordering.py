"""The order of a list, and which rows come after a place in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Uuid, and_, false, or_, true, tuple_
from sqlalchemy.sql import ColumnElement

from controlplane.errors import invalid
from controlplane.rest.filters.fields import SQL_TYPES, Field, Kind
from controlplane.rest.listing import FieldRefused, Listing

MAX_TERMS = 8
TERM = re.compile(r"\s*([^\s.,]+(?:\.[^\s.,]+)*)(?:\s+(asc|desc))?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Term:
    """One thing that a list is ordered by. What is unset comes last, in either direction."""

    field: Field
    descending: bool

    @property
    def expression(self) -> ColumnElement[Any]:
        return self.field.order_expression

    @property
    def clause(self) -> ColumnElement[Any]:
        clause = self.expression.desc() if self.descending else self.expression.asc()
        return clause.nulls_last() if self.field.nullable else clause

    def after(self, value: Any) -> ColumnElement[bool]:
        if value is None:
            return false()
        bound = self.field.literal(value)
        beyond = self.expression < bound if self.descending else self.expression > bound
        return or_(beyond, self.expression.is_(None)) if self.field.nullable else beyond

    def at(self, value: Any) -> ColumnElement[bool]:
        return self.expression.is_(None) if value is None else self.expression == self.field.literal(value)


def read_order(order_by: str, listing: Listing) -> list[Term]:
    """The terms of `orderBy`, made unique: `foo,bar desc`, or the collection's default when it is empty."""
    terms: list[Term] = []
    for path, descending in _parse(order_by if order_by.strip() else listing.order):
        field = _find(listing, path)
        if not field.constant:
            terms.append(Term(field, descending))
        if field.unique:
            return terms
    direction = terms[-1].descending if terms else False
    return [*terms, Term(_unique(listing), direction)]


def rows_after(terms: Sequence[Term], position: Sequence[Any]) -> ColumnElement[bool]:
    """The condition for rows that come after the row with these values."""
    places = list(zip(terms, position, strict=True))
    if not any(term.field.nullable or term.descending != terms[0].descending for term in terms):
        return _beyond_all(terms, position)
    chain = [
        and_(*(term.at(value) for term, value in places[:length]), places[length][0].after(places[length][1]))
        for length in range(len(places))
    ]
    return and_(_not_before(*places[0]), or_(*chain))


def _not_before(term: Term, value: Any) -> ColumnElement[bool]:
    """Follows from the rest of the condition; an index finds the place with it."""
    if term.field.nullable:
        return true()
    bound = term.field.literal(value)
    return term.expression <= bound if term.descending else term.expression >= bound


def _beyond_all(terms: Sequence[Term], position: Sequence[Any]) -> ColumnElement[bool]:
    """As one comparison of rows, which an index can answer."""
    row = tuple_(*(term.expression for term in terms))
    values = tuple_(*(term.field.literal(value) for term, value in zip(terms, position, strict=True)))
    return row < values if terms[0].descending else row > values


def _parse(order_by: str) -> list[tuple[str, bool]]:
    found: dict[str, bool] = {}
    for number, part in enumerate(order_by.split(","), 1):
        match = TERM.fullmatch(part)
        if match is None:
            text = (
                f'part {number} of orderBy must be a field, or a field and asc or desc, as in "foo,bar desc"'
            )
            raise invalid(f"{text}; it is {part.strip()!r}", "orderBy")
        path, direction = match.groups()
        if path in found:
            raise invalid(f"orderBy names {path} twice", "orderBy")
        found[path] = (direction or "").lower() == "desc"
    if len(found) > MAX_TERMS:
        raise invalid(f"orderBy may name at most {MAX_TERMS} fields", "orderBy")
    return list(found.items())


def _find(listing: Listing, path: str) -> Field:
    try:
        field = listing.find(tuple(path.split(".")))
    except FieldRefused as refusal:
        raise invalid(f"orderBy: {refusal}", "orderBy") from None
    if field.kind not in SQL_TYPES:
        raise invalid(f"orderBy: {path} is not a single value; order by a part of it", "orderBy")
    return field


def _unique(listing: Listing) -> Field:
    kind = Kind.UID if isinstance(listing.unique.type, Uuid) else Kind.NAME
    return Field(kind, listing.unique, unique=True)
