"""Schemas, grammars and lists of tools by the hundred: none hangs, and every answer fits what was asked for.

HEARTH_CONSTRAINT_EXAMPLES sets how many of each are made up; 10,000 take some minutes.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import jsonschema_rs
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.answers import Shaper
from gateway.dialect import translate_chat, translate_completion
from gateway.errors import GatewayError
from gateway.metering import Tokens
from tests.gateway.constraints.sampling import drawn

EXAMPLES = int(os.environ.get("HEARTH_CONSTRAINT_EXAMPLES", "150"))
SECONDS = 2.0
QUESTION = [{"role": "user", "content": "?"}]
NAMES = st.sampled_from(["a", "b", "ab", "c d", 'q"', "é", "$ref", "type"])

made_up = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 150,
    suppress_health_check=list(HealthCheck),
)


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


def translated(translate: Any, **fields: Any) -> Any:
    """The request for the engine; none for what is refused, which must be told as the caller's mistake."""
    began = time.process_time()
    try:
        return translate({"model": "m", **fields}, 4096)
    except GatewayError as error:
        assert error.status == 400
        assert error.param
        return None
    finally:
        assert time.process_time() - began < SECONDS


def answers(request: Any, count: int = 3) -> list[str]:
    grammar = request.body["structured_outputs"]["grammar"]
    return [answer for seed in range(count) if (answer := drawn(grammar, seed)) is not None]


def fits(schema: Any, value: Any) -> bool:
    """By another reading of the schema than ours; a reference that leads nowhere in a part that holds for
    nothing makes a schema that only this one refuses."""
    try:
        return jsonschema_rs.is_valid(schema, value)
    except jsonschema_rs.ValidationError as error:
        return "does not exist" in error.message


@made_up
@given(schemas())
def test_an_answer_fits_its_schema(schema: Any) -> None:
    assume(isinstance(schema, dict))
    schema = {**schema, "$defs": {"x": {"type": "null"}}}
    request = translated(
        translate_completion, prompt="x", response_format={"type": "json_object", "schema": schema}
    )
    if request is None:
        return
    enforced = not request.headers
    for answer in answers(request):
        value = json.loads(answer)
        if enforced:
            assert fits(schema, value), (schema, answer)


@made_up
@given(grammars())
def test_an_answer_fits_its_grammar(grammar: str) -> None:
    request = translated(
        translate_completion, prompt="x", response_format={"type": "grammar", "grammar": grammar}
    )
    if request is None:
        return
    expression = as_pattern(grammar)
    for answer in answers(request):
        assert expression is None or expression.fullmatch(answer), (grammar, answer)


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


@made_up
@given(st.text(alphabet='root::= \n"[]()|*+?{}.,\\^-#a1', max_size=60))
def test_any_text_is_a_grammar_or_wrong_with_its_place(text: str) -> None:
    translated(
        translate_completion, prompt="x", response_format={"type": "grammar", "grammar": f"root ::= {text}"}
    )


@made_up
@given(
    st.lists(st.dictionaries(NAMES, schemas(), max_size=3), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["auto", "required", "any", {"type": "function", "function": {"name": "f0"}}]),
)
def test_a_reply_is_a_call_whose_arguments_fit(parameters: list[Any], parallel: bool, choice: Any) -> None:
    tools = [
        {
            "type": "function",
            "function": {"name": f"f{n}", "parameters": {"type": "object", "properties": each}},
        }
        for n, each in enumerate(parameters)
    ]
    asked = {"messages": QUESTION, "tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel}
    openings = ("{", "[") if parallel else "{"
    for seed in range(2):
        request = translated(translate_chat, **asked)
        if request is None:
            return
        answer = drawn(request.body["structured_outputs"]["grammar"], seed)
        if answer is None or not (choice != "auto" or answer.lstrip(" \t\n").startswith(openings)):
            continue
        whole = {"choices": [{"index": 0, "message": {"content": answer}, "finish_reason": "stop"}]}
        read = Shaper("m", Tokens(), calls=request.calls).whole(whole)["choices"][0]
        assert read["finish_reason"] == "tool_calls"
        for call in read["message"]["tool_calls"]:
            schema = tools[int(call["function"]["name"][1:])]["function"]["parameters"]
            value = json.loads(call["function"]["arguments"])
            if not request.headers:
                assert fits(schema, value), (schema, answer)
