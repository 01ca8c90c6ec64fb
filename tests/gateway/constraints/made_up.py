"""Schemas and grammars made up by chance, and what an answer is to them by another reading than ours."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "ab", "c d", 'q"', "é", "$ref", "type"])


def schemas() -> st.SearchStrategy[Any]:
    simple = st.one_of(
        st.sampled_from(
            [{}, True, {"type": "null"}, {"type": "boolean"}, {"type": ["string", "integer", "null"]}]
        ),
        st.fixed_dictionaries({"enum": st.lists(json_values(), min_size=1, max_size=4)}),
        st.fixed_dictionaries({"const": json_values()}),
        st.fixed_dictionaries(
            {"type": st.just("string")},
            optional={
                "minLength": st.integers(0, 3),
                "maxLength": st.integers(2, 9),
                "pattern": st.sampled_from(["^a", "(a+)+$"]),
                "format": st.sampled_from(["date", "time", "uuid", "ipv4", "email"]),
            },
        ),
        st.fixed_dictionaries(
            {"type": st.sampled_from(["integer", "number"])},
            optional={
                "minimum": st.integers(-2, 3),
                "exclusiveMinimum": st.integers(-2, 2),
                "maximum": st.integers(0, 9),
                "multipleOf": st.just(2),
            },
        ),
        st.sampled_from([{"$ref": "#"}, {"$ref": "#/$defs/x"}, {"$ref": "#/properties/a"}]),
    )
    return st.recursive(simple, larger, max_leaves=12)


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, max_size=4)},
            optional={
                "required": st.lists(NAMES, unique=True, max_size=2),
                "additionalProperties": st.one_of(st.booleans(), inner),
                "minProperties": st.integers(0, 2),
            },
        ),
        st.fixed_dictionaries({"type": st.just("object"), "additionalProperties": inner}),
        st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={
                "minItems": st.integers(0, 2),
                "maxItems": st.integers(1, 4),
                "prefixItems": st.lists(inner, min_size=1, max_size=2),
                "uniqueItems": st.just(True),
            },
        ),
        st.fixed_dictionaries(
            {"anyOf": st.lists(inner, min_size=1, max_size=3)}, optional={"type": st.just("object")}
        ),
        st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries(
            {"allOf": st.lists(inner, min_size=1, max_size=3)},
            optional={
                "properties": st.dictionaries(NAMES, inner, max_size=2),
                "additionalProperties": st.booleans(),
                "unevaluatedProperties": st.just(False),
            },
        ),
        st.fixed_dictionaries({"not": inner, "type": st.just("string")}),
    )


def json_values() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=4)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)
        ),
        max_leaves=4,
    )


def grammars() -> st.SearchStrategy[str]:
    part = st.recursive(
        st.sampled_from(['"a"', '"bc"', "[a-c]", "[^a\\n]", ".", '""', "root", "one", "two", '"\\u00e9"']),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,3}", "{1,}"])).map(
                lambda pair: f"({pair[0]}){pair[1]}"
            ),
            st.lists(inner, min_size=1, max_size=3).map(" ".join),
            st.lists(inner, min_size=2, max_size=3).map(lambda each: f"({' | '.join(each)})"),
        ),
        max_leaves=8,
    )
    return st.tuples(part, part, part).map(lambda three: "root ::= {}\none ::= {}\ntwo ::= {}".format(*three))


def fits(schema: Any, value: Any) -> bool:
    """By another reading of the schema than ours; a reference that leads nowhere in a part that holds for
    nothing makes a schema that only this one refuses."""
    try:
        return jsonschema_rs.is_valid(schema, value)
    except jsonschema_rs.ValidationError as error:
        return "does not exist" in error.message


def as_pattern(grammar: str) -> re.Pattern[str] | None:
    """The same as a regular expression, where no rule leads back to itself."""
    rules = dict(line.split(" ::= ") for line in grammar.splitlines())
    text = rules["root"]
    for _ in range(3):
        for name in ("root", "one", "two"):
            text = re.sub(rf"\b{name}\b", f"({rules[name]})".replace("\\", "\\\\"), text)
    if len(text) > 2000 or re.search(r"\b(root|one|two)\b", text):
        return None
    return re.compile(re.sub(r'"([^"]*)"|(?<![\[\^]) ', lambda found: found[1] or "", text), re.DOTALL)
