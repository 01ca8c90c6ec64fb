"""JSON Schemas, read into the few forms that can be enforced, with what cannot listed by its place.

The read schema is a JSON Schema itself, of these forms only, and what it allows the given one allows, too,
but for the listed parts:

    {}                                                              any value
    {"$ref": "#/$defs/…"}    {"anyOf": […]}    {"enum": […]}
    {"type": "null"}         {"type": "boolean"}
    {"type": "integer"}      {"type": "number"}       "minimum": 0 or 1
    {"type": "string"}       "minLength", "maxLength", "format"
    {"type": "array"}        "items", "prefixItems", "minItems", "maxItems"
    {"type": "object"}       "properties", "required", "additionalProperties" (always said)

An object with `properties` is closed unless it says otherwise: the API reads it so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

from gateway.constraints import limits
from gateway.constraints.schema_merging import merged
from gateway.constraints.schema_places import are_apart, escaped, found_at, resolved
from gateway.constraints.schema_rules import TOO_DEEP, SchemaError, require_valid

FORMATS = ("date", "time", "date-time", "uuid", "ipv4")
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
# The keywords that make sense with each type; they also tell the type where none is given.
OF_TYPE: dict[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties", "unevaluatedProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "format"),
    "integer": BOUNDS,
    "number": BOUNDS,
    "boolean": (),
    "null": (),
}
UNENFORCED_OF_TYPE: dict[str, tuple[str, ...]] = {
    "object": (
        "minProperties",
        "maxProperties",
        "patternProperties",
        "propertyNames",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
    ),
    "array": ("uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems", "additionalItems"),
    "string": ("pattern", "contentSchema"),
    "integer": ("multipleOf",),
    "number": ("multipleOf",),
    "boolean": (),
    "null": (),
}
UNENFORCED = ("not", "if", "then", "else")
COMBINING = ("$ref", "$dynamicRef", "enum", "const", "anyOf", "oneOf", "allOf")
KEYWORDS = frozenset(
    ["type", *COMBINING, *UNENFORCED]
    + [name for names in (*OF_TYPE.values(), *UNENFORCED_OF_TYPE.values()) for name in names]
)
SPAN = 100
"""Integers between two bounds are listed one by one up to this many."""
PYTHON_TYPES: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("boolean", bool),
    ("null", type(None)),
    ("string", str),
    ("integer", int),
    ("number", (int, float)),
    ("array", list),
    ("object", dict),
)


@dataclass(frozen=True)
class Schema:
    form: dict[str, Any]
    """The schema in the forms above."""
    unenforced: tuple[str, ...] = ()
    """`keyword at #/place`, of each part that no answer is held to."""


def read_schema(given: Any) -> Schema:
    """Raises SchemaError for what is no JSON Schema, has no finite value, or is too large."""
    if not isinstance(given, dict | bool):
        raise SchemaError("a schema must be an object or true or false")
    require_valid(given)
    reader = _Reader(given)
    form = reader.read(given, "#", 0)
    definitions = reader.definitions()
    if definitions:
        form = {**form, "$defs": definitions}
    return Schema(form, tuple(dict.fromkeys(reader.unenforced)))


class _Reader:
    """Reads one schema and, as they are asked for, the definitions that it refers to."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._nodes = 0
        self._counted = 0
        self._characters = 0
        self._open_names = 0
        self._names: dict[str, str] = {}
        self._waiting: list[str] = []
        self.unenforced: list[str] = []

    def definitions(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._waiting:
            pointer = self._waiting.pop()
            found[self._names[pointer]] = self.read(found_at(self._root, pointer), pointer, 0)
        return found

    def read(self, given: Any, place: str, depth: int) -> dict[str, Any]:
        self._nodes += 1
        if self._nodes > limits.SCHEMA_NODES:
            raise SchemaError(f"it has more than {limits.SCHEMA_NODES} parts")
        if depth > limits.SCHEMA_DEPTH:
            raise SchemaError(TOO_DEEP)
        if given is True:
            return {}
        if given is False:
            raise SchemaError(f"at {place}: it is false, which no value fulfils")
        if not isinstance(given, dict):
            raise SchemaError(f"at {place}: a schema must be an object, true or false")
        return self._read(given, place, depth)

    def _read(self, given: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        rest = {name: value for name, value in given.items() if name in KEYWORDS}
        for name in COMBINING:
            if name in rest:
                value = rest.pop(name)
                return self._combined(name, value, rest, place, depth)
        return self._typed(rest, place, depth)

    def _combined(
        self, name: str, value: Any, rest: dict[str, Any], place: str, depth: int
    ) -> dict[str, Any]:
        if name in ("$ref", "$dynamicRef"):
            self._give_up(rest, place)
            return {"$ref": f"#/$defs/{self._definition(value, place)}"}
        if name in ("enum", "const"):
            return self._enum([value] if name == "const" else value, rest, place)
        if name == "allOf":
            return self._all_of(value, rest, place, depth)
        if name == "oneOf" and not are_apart(value, self._root):
            self.unenforced.append(f"oneOf at {place}")
        return self._any_of(name, value, rest, place, depth)

    def _give_up(self, names: Iterable[str], place: str) -> None:
        self.unenforced += [f"{name} at {place}" for name in names]

    def _definition(self, reference: str, place: str) -> str:
        pointer = unquote(reference)
        if pointer != "#" and not pointer.startswith("#/"):
            raise SchemaError(f"at {place}: $ref may only lead to a place in the same schema, by #/…")
        try:
            found_at(self._root, pointer)
        except (KeyError, IndexError, ValueError, TypeError):
            raise SchemaError(f"at {place}: there is nothing at {pointer[:200]}") from None
        if pointer not in self._names:
            self._names[pointer] = f"d{len(self._names)}"
            self._waiting.append(pointer)
        return self._names[pointer]

    def _enum(self, values: list[Any], rest: dict[str, Any], place: str) -> dict[str, Any]:
        if "type" in rest:
            wanted = rest.pop("type")
            types = [wanted] if isinstance(wanted, str) else wanted
            values = [value for value in values if _has_type(value, types)]
        self._give_up(rest, place)
        if not values:
            raise SchemaError(f"at {place}: no value is allowed")
        if len(values) > limits.ENUM_VALUES:
            raise SchemaError(f"at {place}: it allows too many values to list")
        self._write(len(msgspec.json.encode(values)), place)
        return {"enum": values}

    def _write(self, characters: int, place: str) -> None:
        """Count what is written out, as often as references and merging have it written."""
        self._characters += characters
        if self._characters > limits.ENUM_CHARACTERS:
            raise SchemaError(f"at {place}: its names and values are too long together")

    def _any_of(
        self, name: str, choices: list[Any], rest: dict[str, Any], place: str, depth: int
    ) -> dict[str, Any]:
        """Any of them. What is said next to them holds for each that does not say it itself."""
        read = []
        for index, choice in enumerate(choices):
            here = f"{place}/{name}/{index}"
            if choice is False:
                continue
            whole = choice if isinstance(choice, dict) else {}
            read.append(self.read(self._with(whole, rest, here) if rest else whole, here, depth + 1))
        if not read:
            raise SchemaError(f"at {place}: no value is allowed")
        return {"anyOf": read}

    def _all_of(self, choices: list[Any], rest: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        self._nodes += len(choices)
        if self._nodes > limits.SCHEMA_NODES:
            raise SchemaError(f"it has more than {limits.SCHEMA_NODES} parts")
        unevaluated = rest.pop("unevaluatedProperties", None)
        whole = rest
        for index, given in enumerate(choices):
            here = f"{place}/allOf/{index}"
            for part in self._unfolded(given, here):
                whole = self._with(part, whole, here)
        if unevaluated is not None:  # of all that no part speaks of
            whole.setdefault("additionalProperties", unevaluated)
        return self.read(whole, place, depth + 1)

    def _unfolded(self, given: Any, place: str) -> list[dict[str, Any]]:
        """One part of `allOf`: what it refers to, and what it says itself."""
        if isinstance(given, dict) and "$ref" in given:
            own = {name: value for name, value in given.items() if name != "$ref" and name in KEYWORDS}
            target = self._unfolded(resolved({"$ref": given["$ref"]}, self._root), place)
            return [*target, *([own] if own else [])]
        if given is False:
            raise SchemaError(f"at {place}: it is false, which no value fulfils")
        if not isinstance(given, dict):
            return []
        # Within its part, what is not evaluated is what is not named.
        if "unevaluatedProperties" in given and "additionalProperties" not in given:
            given = {**given, "additionalProperties": given["unevaluatedProperties"]}
            del given["unevaluatedProperties"]
        return [given]

    def _with(self, schema: dict[str, Any], more: Mapping[str, Any], place: str) -> dict[str, Any]:
        """`schema` and what is said elsewhere; what cannot be brought together is listed."""
        both, lost = merged({name: value for name, value in schema.items() if name in KEYWORDS}, more)
        self._give_up(lost, place)
        return both

    def _typed(self, given: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        wanted = given.get("type", _told_type(given))
        if wanted is None:
            self._give_up(given, place)
            return {}
        kinds = [wanted] if isinstance(wanted, str) else wanted
        forms = [self._of_type(kind, given, place, depth) for kind in kinds]
        return forms[0] if len(forms) == 1 else {"anyOf": forms}

    def _of_type(self, kind: str, given: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        unenforced = (*UNENFORCED_OF_TYPE[kind], *UNENFORCED)
        self._give_up([name for name in given if name in unenforced], place)
        match kind:
            case "object":
                return self._object(given, place, depth)
            case "array":
                return self._array(given, place, depth)
            case "string":
                return self._string(given, place)
            case "integer" | "number":
                return self._number(kind, given, place)
        return {"type": kind}

    def _object(self, given: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        needed = frozenset(given.get("required", ()))
        properties = {
            name: self.read(inner, f"{place}/properties/{escaped(name)}", depth + 1)
            for name, inner in given.get("properties", {}).items()
            if inner is not False or name in needed
        }
        required = list(given.get("required", ()))
        others = given.get(
            "additionalProperties", given.get("unevaluatedProperties", "properties" not in given)
        )
        read: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
        if missing := [name for name in required if name not in properties]:
            if others is False:
                raise SchemaError(f"at {place}: it requires {missing[0]!r}, which is none of its properties")
            for name in missing:
                properties[name] = self.read(others, f"{place}/additionalProperties", depth + 1)
        if others is not False:
            forbidden = [name for name in given.get("properties", {}) if name not in properties]
            self.unenforced += [f"false at {place}/properties/{escaped(name)}" for name in forbidden]
        names = sum(map(len, properties))
        self._write(names, place)
        if others is not False and properties:
            self._open_names += names
            if self._open_names > limits.OPEN_NAMES or max(map(len, properties)) > limits.OPEN_NAME:
                self.unenforced.append(f"additionalProperties at {place}")  # closed: narrower, yet right
                others = False
        read["additionalProperties"] = (
            False if others is False else self.read(others, f"{place}/additionalProperties", depth + 1)
        )
        return read

    def _array(self, given: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        """Items after the first ones are only allowed where the schema speaks of them."""
        read: dict[str, Any] = {"type": "array", **self._counts(given, ("minItems", "maxItems"), place)}
        first = given.get("prefixItems", [])[: read.get("maxItems")]
        if first:
            read["prefixItems"] = [
                self.read(inner, f"{place}/prefixItems/{index}", depth + 1)
                for index, inner in enumerate(first)
            ]
        items = given.get("items", not first)
        if items is False and read.get("minItems", 0) > len(first):
            raise SchemaError(f"at {place}: it asks for more items than it allows")
        read["items"] = False if items is False else self.read(items, f"{place}/items", depth + 1)
        return read

    def _string(self, given: dict[str, Any], place: str) -> dict[str, Any]:
        read: dict[str, Any] = {"type": "string"}
        if "format" in given:
            if given["format"] in FORMATS:
                self._give_up([name for name in ("minLength", "maxLength") if name in given], place)
                return {**read, "format": given["format"]}
            self.unenforced.append(f"format at {place}")
        return read | self._counts(given, ("minLength", "maxLength"), place)

    def _counts(self, given: dict[str, Any], names: tuple[str, str], place: str) -> dict[str, int]:
        """The two bounds of a length, unless they are more than is counted."""
        found = {name: int(given[name]) for name in names if name in given}
        low, high = found.get(names[0], 0), found.get(names[1])
        if high is not None and high < low:
            raise SchemaError(f"at {place}: {names[1]} is less than {names[0]}")
        kept = {}
        for name, value in found.items():
            if value > limits.COUNTED or self._counted + value > limits.COUNTED_TOGETHER:
                self.unenforced.append(f"{name} at {place}")
            else:
                self._counted += value
                kept[name] = value
        return kept

    def _number(self, kind: str, given: dict[str, Any], place: str) -> dict[str, Any]:
        """Integers within narrow bounds are listed. Others may be held to be at least 0, or 1 if integers."""
        bounds = [name for name in BOUNDS if name in given]
        if kind == "integer" and (span := _span(given)) is not None:
            if not span:
                raise SchemaError(f"at {place}: its bounds leave no value")
            if span.stop - span.start <= SPAN:
                return {"enum": list(span)}
        read: dict[str, Any] = {"type": kind}
        least = _least(kind, given)
        if least is not None:
            read["minimum"] = least
            bounds = [name for name in bounds if name not in ("minimum", "exclusiveMinimum")]
        self._give_up(bounds, place)
        return read


def _span(given: Mapping[str, Any]) -> range | None:
    """The integers between two bounds; None where one is missing."""
    low = [math.ceil(given[name]) for name in ("minimum",) if name in given]
    low += [math.floor(given[name]) + 1 for name in ("exclusiveMinimum",) if name in given]
    high = [math.floor(given[name]) for name in ("maximum",) if name in given]
    high += [math.ceil(given[name]) - 1 for name in ("exclusiveMaximum",) if name in given]
    return range(max(low), min(high) + 1) if low and high else None


def _least(kind: str, given: Mapping[str, Any]) -> int | None:
    """0 or 1, where that is all that the lower bounds say."""
    if "minimum" in given and "exclusiveMinimum" in given:
        return None
    if kind == "integer" and (given.get("minimum") == 1 or given.get("exclusiveMinimum") == 0):
        return 1
    if given.get("minimum") == 0 or (kind == "integer" and given.get("exclusiveMinimum") == -1):
        return 0
    return None


def _told_type(given: Mapping[str, Any]) -> str | None:
    """The type that the keywords speak of, where none is given."""
    for kind, names in OF_TYPE.items():
        if any(name in given for name in names):
            return "number" if kind == "integer" else kind
    return None


def _has_type(value: Any, types: list[str]) -> bool:
    kind = next(name for name, types_of in PYTHON_TYPES if isinstance(value, types_of))
    if isinstance(value, float) and value.is_integer() and "integer" in types:
        return True
    return kind in types or (kind == "integer" and "number" in types)
