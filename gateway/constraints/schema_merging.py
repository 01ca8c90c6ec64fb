"""Two JSON Schemas that hold at once, as one: what both say is brought together where that can be said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

LARGER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
SMALLER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
OF_OBJECTS = ("properties", "additionalProperties", "unevaluatedProperties", "patternProperties")


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The schema of what fits both, and the keywords of which only what `one` says is kept."""
    both: dict[str, Any] = dict(one)
    lost = []
    for name, value in other.items():
        if name not in both or _same(both[name], value):
            both[name] = value
            continue
        met = MEETING[name](both[name], value) if name in MEETING else None
        if met is None and name not in OF_OBJECTS and name != "prefixItems":
            lost.append(name)
        elif met is not None:
            both[name] = met
    if "patternProperties" in one and one["patternProperties"] != other.get("patternProperties", {}):
        lost += ["patternProperties"] if "patternProperties" in other else []
    if "properties" in both or "additionalProperties" in both:
        both |= _members(one, other)
        if _has_unsure(one, other) or _has_unsure(other, one):
            lost.append("additionalProperties")
    if "prefixItems" in both:
        both |= _elements(one, other)
    return both, lost


def _members(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of both. Each has to fit what either says of it, by name or as one of the others."""
    found: dict[str, Any] = {}
    for name in (*other.get("properties", {}), *one.get("properties", {})):
        found[name] = both_of(_said(one, name), _said(other, name))
    told: dict[str, Any] = {"properties": found} if "properties" in one or "properties" in other else {}
    if "additionalProperties" in one or "additionalProperties" in other:
        told["additionalProperties"] = both_of(
            one.get("additionalProperties", True), other.get("additionalProperties", True)
        )
    return told


def _has_unsure(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a property of `other` may be one that `one` forbids, or tells by a pattern."""
    if "patternProperties" not in one or one.get("additionalProperties", True) in (True, {}):
        return False
    return not other.get("properties", {}).keys() <= one.get("properties", {}).keys()


def _elements(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The items of both. Each has to fit what either says of it, by its place or as one of the others."""
    count = max(len(each.get("prefixItems", [])) for each in (one, other))
    placed = [both_of(_placed(one, at), _placed(other, at)) for at in range(count)]
    if False in placed:
        return {"prefixItems": placed[: placed.index(False)], "items": False}
    if "items" not in one and "items" not in other:
        return {"prefixItems": placed}
    return {"prefixItems": placed, "items": both_of(one.get("items", True), other.get("items", True))}


def _placed(schema: Mapping[str, Any], at: int) -> Any:
    first = schema.get("prefixItems", [])
    return first[at] if at < len(first) else schema.get("items", True)


def _said(schema: Mapping[str, Any], name: str) -> Any:
    properties = schema.get("properties", {})
    return properties[name] if name in properties else _others(schema)


def _others(schema: Mapping[str, Any]) -> Any:
    """What is said of properties without a name. Where some are told by a pattern, nothing is sure."""
    return True if "patternProperties" in schema else schema.get("additionalProperties", True)


def both_of(one: Any, other: Any) -> Any:
    if one is False or other is False:
        return False
    if one in (True, {}) or _same(one, other):
        return other
    if other in (True, {}):
        return one
    return {"allOf": [one, other]}


def _same(one: Any, other: Any) -> bool:
    """Python takes true for 1."""
    return one == other and _written(one) == _written(other)


def _written(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _types(one: Any, other: Any) -> Any:
    """The types in both; an integer is a number. None where there are none."""
    first, second = ([each] if isinstance(each, str) else each for each in (one, other))
    found = [each for each in first if each in second or (each == "integer" and "number" in second)]
    if "number" in first and "integer" in second and "integer" not in found:
        found.append("integer")
    return (found[0] if len(found) == 1 else found) or None


def _values(one: list[Any], other: list[Any]) -> list[Any] | None:
    allowed = {msgspec.json.encode(value) for value in other}
    return [value for value in one if msgspec.json.encode(value) in allowed] or None


def _required(one: list[str], other: list[str]) -> list[str]:
    return list(dict.fromkeys([*other, *one]))


MEETING: Mapping[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(LARGER, max),
    **dict.fromkeys(SMALLER, min),
    "required": _required,
    "type": _types,
    "enum": _values,
    "items": both_of,
}
"""How two values of a keyword are brought together; None where no value is left that can be said."""
