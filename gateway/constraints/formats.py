"""`response_format`: what an answer is to be, as the engine is told, and what of it cannot be enforced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.checks import boolean, json_schema, mapping, only, string
from gateway.constraints import limits
from gateway.constraints.engine import written
from gateway.constraints.gbnf import GbnfError, read_gbnf
from gateway.constraints.grammar import GrammarError, Rules, Text, walk
from gateway.constraints.schema import Schema, read_schema
from gateway.constraints.schema_rules import SchemaError
from gateway.constraints.schema_text import schema_rules
from gateway.constraints.soundness import checked, refuse_left_recursion
from gateway.errors import invalid

FORMATS = ("text", "grammar", "json_schema", "json_object")
UNENFORCED_HEADER = "hearth-schema-not-enforced"


@dataclass(frozen=True)
class Constraint:
    """What the engine holds an answer to."""

    grammar: str
    unenforced: tuple[str, ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        return {"structured_outputs": {"grammar": self.grammar}}


def response_constraint(field: str, value: Any) -> Constraint | None:
    """None for plain text; 400 for what is no format, or none that can be kept to."""
    wanted = mapping(field, value)
    kind = wanted.get("type")
    if kind not in FORMATS:
        raise invalid(f"Invalid format type: {kind}. Must be one of: {', '.join(FORMATS)}", field)
    match kind:
        case "text":
            only(field, wanted, {"type"})
            return None
        case "grammar":
            only(field, wanted, {"type", "grammar"})
            return _of_grammar(f"{field}.grammar", string(f"{field}.grammar", wanted.get("grammar")))
        case "json_object":
            only(field, wanted, {"type", "schema"})
            given = wanted.get("schema")
            return _of_schema(f"{field}.schema", {"type": "object"} if given is None else given, strict=False)
    only(field, wanted, {"type", "json_schema"})
    inner = json_schema(f"{field}.json_schema", wanted.get("json_schema"))
    only(f"{field}.json_schema", inner, {"name", "schema", "strict", "description"})
    for name in ("name", "description"):
        if inner.get(name) is not None:
            string(f"{field}.json_schema.{name}", inner[name])
    strict = inner.get("strict") is not None and boolean(f"{field}.json_schema.strict", inner["strict"])
    return _of_schema(f"{field}.json_schema.schema", inner.get("schema"), strict=strict)


def checked_schema(field: str, given: Any, *, strict: bool) -> Schema:
    """A schema in the forms that can be enforced; 400 for others, and if strict for what only partly can."""
    try:
        schema = read_schema(given)
    except SchemaError as error:
        raise invalid(f"'{field}': {error}", field) from None
    if strict and schema.unenforced:
        raise invalid(f"'{field}' cannot be kept to strictly: {shown_list(schema.unenforced)}", field)
    return schema


def unenforced_header(unenforced: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """The header that lists what of the schemas no answer is held to; none when that is nothing."""
    listed = shown_list(quote(part, safe=" #/,:~._-$") for part in unenforced)
    return [(UNENFORCED_HEADER.encode(), listed.encode())] if listed else []


def shown_list(parts: Iterable[str]) -> str:
    text = ", ".join(parts)
    if len(text) <= limits.UNENFORCED_CHARACTERS:
        return text
    whole = text[: limits.UNENFORCED_CHARACTERS].rpartition(", ")[0]
    return f"{whole}, and more" if whole else "more than can be told here"


def require_bytes(field: str, encoded: bytes) -> None:
    if len(encoded) > limits.SCHEMA_BYTES:
        raise invalid(f"'{field}' is larger than {limits.SCHEMA_BYTES} bytes", field)


def sound(field: str, rules: Rules) -> str:
    """The engine's text of rules that were made from schemas; 400 when they have no end or are too many."""
    if len(rules) > limits.SCHEMA_RULES:
        raise invalid(f"'{field}' cannot be kept to: its schemas are too large together", field)
    size = sum(len(part.value) for each in rules.values() for part in walk(each) if isinstance(part, Text))
    if size > limits.WRITTEN_CHARACTERS:
        raise invalid(f"'{field}' cannot be kept to: its schemas are too large together", field)
    try:
        kept = checked(rules)
        refuse_left_recursion(kept)
        return written(kept)
    except GrammarError as error:
        raise invalid(f"'{field}' cannot be kept to: {error}", field) from None


def _of_grammar(field: str, text: str) -> Constraint:
    try:
        return Constraint(written(read_gbnf(text)))
    except GbnfError as error:
        raise invalid(f"'{field}': {error}", field) from None


def _of_schema(field: str, given: Any, *, strict: bool) -> Constraint:
    read = json_schema(field, given)
    encoded = msgspec.json.encode(read)
    require_bytes(field, encoded)
    if len(encoded) <= limits.KEPT_BYTES:
        return _of_encoded_schema(field, encoded, strict)
    return _of_read_schema(field, read, strict)


@lru_cache(maxsize=256)
def _of_encoded_schema(field: str, encoded: bytes, strict: bool) -> Constraint:
    """Schemas come again and again, so that their constraints are kept, by their text."""
    return _of_read_schema(field, msgspec.json.decode(encoded), strict)


def _of_read_schema(field: str, given: Any, strict: bool) -> Constraint:
    schema = checked_schema(field, given, strict=strict)
    return Constraint(sound(field, schema_rules(schema.form)), schema.unenforced)
