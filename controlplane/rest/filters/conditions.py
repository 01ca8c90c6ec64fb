"""Turns the tree of a filter into SQL conditions; what the user wrote is only ever a bound parameter."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import String, and_, false, func, literal, not_, or_, true
from sqlalchemy.sql import ColumnElement

from controlplane.rest.filters.fields import Field, Kind
from controlplane.rest.filters.literals import bound, shown
from controlplane.rest.filters.nodes import And, Comparison, FilterError, Node, Not, Or, Search, Value
from controlplane.rest.filters.parser import parse_filter
from controlplane.rest.listing import FieldRefused, Listing

Condition = ColumnElement[bool]

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    ":": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
UNORDERED = (Kind.BOOL, Kind.ENUM)
TEXTUAL = (Kind.TEXT, Kind.ENTRY, Kind.NAME)
LIKE_SPECIAL = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})


def read_filter(text: str, listing: Listing) -> Condition | None:
    """The condition that a filter means in a list, or None of an empty one; FilterError for a wrong one."""
    tree = parse_filter(text)
    return None if tree is None else _Conditions(listing).of(tree)


class _Conditions:
    def __init__(self, listing: Listing) -> None:
        self.listing = listing

    def of(self, node: Node) -> Condition:
        match node:
            case And(operands):
                return and_(*map(self.of, operands))
            case Or(operands):
                return or_(*map(self.of, operands))
            case Not(operand):
                # What is unknown, because something is unset, is not true.
                return self.of(operand).is_not(true())
            case Search(value):
                return self.search(value)
            case Comparison():
                return self.compare(node)

    def search(self, value: Value) -> Condition:
        return or_(*(_contains(field.expression, value.parts) for field in self.listing.searched))

    def compare(self, node: Comparison) -> Condition:
        field = self.find(node)
        if node.operator == ":" and node.value.is_star:
            return _is_set(field)
        if node.operator in ("=", "!=") and node.value.is_null:
            return _is_set(field).is_not(true()) if node.operator == "=" else _is_set(field)
        match field.kind:
            case Kind.MESSAGE:
                return self.has_part(node)
            case Kind.MAP | Kind.TEXTS:
                return _has_element(field, node)
            case Kind.NAME if "/" in node.value.text:
                return _compare_names(field, node)
            case _:
                return _compare_values(field, node)

    def has_part(self, node: Comparison) -> Condition:
        if node.operator != ":":
            raise _refused_operator(
                node, "is a message; compare a part of it, or ask with :* whether it is set"
            )
        inner = Comparison((*node.path, node.value.text), ":", Value(("", "")), node.value.column)
        return self.compare(inner)

    def find(self, node: Comparison) -> Field:
        try:
            return self.listing.find(node.path)
        except FieldRefused as refusal:
            raise FilterError(node.column, str(refusal)) from None


def _compare_values(field: Field, node: Comparison) -> Condition:
    if field.kind in UNORDERED and node.operator not in ("=", "!=", ":"):
        raise _refused_operator(node, "has no order; use = or !=")
    expression = field.segments[-2] if field.kind is Kind.NAME else field.expression
    if field.kind is not Kind.ENTRY and field.kind in TEXTUAL and node.operator == ":":
        return _contains(expression, node.value.parts)
    if _is_pattern(field, node):
        return _matches(field, expression, node)
    value = bound(field, node)
    if node.operator == "!=":
        return expression != value if _skips_unset(field) else expression.is_distinct_from(value)
    found: Condition = COMPARE[node.operator](expression, value)
    return found


def _is_pattern(field: Field, node: Comparison) -> bool:
    open_text = field.kind in TEXTUAL or (field.kind is Kind.ENUM and not field.values)
    return open_text and node.value.has_wildcard and node.operator in ("=", "!=", ":")


def _matches(field: Field, expression: ColumnElement[Any], node: Comparison) -> Condition:
    found = expression.like(_pattern(node.value.parts))
    if node.operator != "!=":
        return found
    return not_(found) if _skips_unset(field) else found.is_not(true())


def _skips_unset(field: Field) -> bool:
    """AIP-160: nothing is said, by != neither, of a part of what is unset."""
    return field.nested or not field.nullable


def _compare_names(field: Field, node: Comparison) -> Condition:
    """With a name as a whole, in a way that an index can answer where it is complete."""
    *segments, full = field.segments
    given = node.value.text.split("/")
    if node.operator in ("=", "!=") and not node.value.has_wildcard and len(given) == len(segments):
        same = and_(*(_same(one, other) for one, other in zip(segments, given, strict=True)))
        return same if node.operator == "=" else same.is_not(true())
    whole = Field(Kind.TEXT, full, nullable=field.nullable, nested=field.nested)
    return _compare_values(whole, node)


def _same(segment: Any, given: str) -> Condition:
    if isinstance(segment, str):
        return true() if segment == given else false()
    found: Condition = segment == literal(given, String())
    return found


def _has_element(field: Field, node: Comparison) -> Condition:
    if node.operator != ":":
        hint = "compare one of its keys, or ask with : for a key" if field.kind is Kind.MAP else "ask with :"
        raise _refused_operator(node, f"holds several values; {hint}")
    return field.expression.op("?", is_comparison=True)(literal(node.value.text, String()))


def _is_set(field: Field) -> Condition:
    """Whether a field has another value than its default."""
    expression = field.expression
    match field.kind:
        case Kind.TEXT | Kind.NAME:
            return expression != literal("", String())
        case Kind.ENUM:
            return and_(expression != literal("", String()), not_(expression.like("%UNSPECIFIED")))
        case Kind.INT | Kind.NUMBER:
            return expression != 0
        case Kind.MAP:
            return expression != func.jsonb_build_object()
        case Kind.TEXTS:
            return expression != func.jsonb_build_array()
        case Kind.BOOL | Kind.MESSAGE:
            return expression
    return expression.is_not(None)


def _contains(expression: ColumnElement[Any], parts: Sequence[str]) -> Condition:
    """Whether the text is in there somewhere, whatever its case."""
    return expression.ilike(_pattern(("", *parts, "")))


def _pattern(parts: Sequence[str]) -> ColumnElement[str]:
    return literal("%".join(part.translate(LIKE_SPECIAL) for part in parts), String())


def _refused_operator(node: Comparison, why: str) -> FilterError:
    return FilterError(node.column, f"{'.'.join(node.path)} {node.operator} {shown(node.value)}: it {why}")
