"""Requests that were made to hang or to break what reads them: each is answered, or refused with 400."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.checks.tool_calls import CallForm
from gateway.dialect import translate_chat
from gateway.errors import GatewayError
from gateway.incoming import parse_object

# They took from seconds to for ever; what is bounded takes a fraction of one.
pytestmark = pytest.mark.timeout(60)

MESSAGES = [{"role": "user", "content": "x"}]
NAMES = [f"{number:04d}{'a' * 40}" for number in range(990)]
RECURSIVE = 'root ::= "(" root ")" | '


def with_schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_object", "schema": schema}}


def with_grammar(*rules: str) -> dict[str, Any]:
    return {"response_format": {"type": "grammar", "grammar": "\n".join(rules)}}


def with_tool(parameters: Any) -> dict[str, Any]:
    function = {"name": "f", "parameters": parameters}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}


def answered(fields: dict[str, Any]) -> int:
    """200 when the request goes on to the engine, else the status of its refusal."""
    text = json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()
    try:
        translate_chat(parse_object(text, 64), 4096, None, CallForm())
    except GatewayError as error:
        return error.status
    return 200


def objects(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}


ORDINARY = {
    "an int64": with_schema({"type": "integer", "minimum": 0, "maximum": 2**63 - 1}),
    "an int64 with its sign": with_schema({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}),
    "a number of thirty digits": with_schema({"enum": [10**30]}),
    "a long name in an open object": with_schema(objects({"a" * 600: {}}, additionalProperties=True)),
}


@pytest.mark.parametrize("fields", ORDINARY.values(), ids=ORDINARY)
def test_what_is_unusual_is_answered(fields: dict[str, Any]) -> None:
    assert answered(fields) == 200


REFUSED = {
    "a temperature of 400 digits": {"temperature": 10**400},
    "an enum that is copied at each use": with_schema(
        {"anyOf": [{"allOf": [{"$ref": "#/$defs/e"}]}] * 450, "$defs": {"e": {"enum": NAMES}}}
    ),
    "a reference to what is no schema": with_schema(
        objects({"a": {"$ref": "#/default"}}, default={"type": 5})
    ),
    "a reference to a place of no meaning": with_schema(
        {"$ref": "#/components/x", "components": {"x": {"type": "nope"}}}
    ),
    "a reference in a choice to what is no schema": with_schema(
        {"oneOf": [{"$ref": "#/default"}] * 2, "default": {"type": "object", "properties": [1]}}
    ),
    "parameters that are a text": with_tool({"anyOf": [{"type": "string"}]}),
    "parameters that may be null": with_tool({"type": ["object", "null"]}),
    "parameters that refer to a text": with_tool({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}),
    "a rule that is written out for each of its users": with_grammar(
        RECURSIVE + "|".join(f"r{n}" for n in range(480)),
        "big ::= " + " ".join(["[ab]"] * 2500),
        *(f'r{n} ::= big "x"{{2}} "y"{{2}} "{n}"' for n in range(480)),
    ),
    "many rules with many states": with_grammar(
        RECURSIVE + "|".join(f"r{n}" for n in range(450)),
        *(f'r{n} ::= (("a"|"b")* "a" ("a"|"b"){{5}} "{n}")*' for n in range(450)),
    ),
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
def test_what_nobody_needs_is_refused(fields: dict[str, Any]) -> None:
    assert answered(fields) == 400


BOUNDED = {
    "many long names in an open object": with_schema(
        objects({f"{n:04d}{'a' * 190}": True for n in range(990)}, additionalProperties=True)
    ),
    "many parts that require something": with_schema(
        {"type": "object", "allOf": [{"required": [f"p{n}"]} for n in range(9000)]}
    ),
    "many forbidden names and many required ones": with_schema(
        objects({f"p{n}": False for n in range(9000)}, required=[f"q{n}" for n in range(9000)])
    ),
    "a rule that many others walk through": with_grammar(
        RECURSIVE + "|".join(f"r{n}" for n in range(480)),
        "big ::= " + " ".join(['"a"'] * 5000),
        *(f'r{n} ::= "(" big "{n}"' for n in range(480)),
    ),
    "a schema that is itself": with_schema({"$ref": "#"}),
    "a choice of itself": with_schema({"anyOf": [{"allOf": [{"$ref": "#"}]}] * 30}),
}


@pytest.mark.parametrize("fields", BOUNDED.values(), ids=BOUNDED)
def test_what_is_large_ends_in_an_answer(fields: dict[str, Any]) -> None:
    assert answered(fields) in (200, 400)
