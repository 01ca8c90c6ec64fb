"""Schemas, grammars and lists of tools by the hundred: none hangs, and every answer fits what was asked for.

HEARTH_CONSTRAINT_EXAMPLES sets how many of each are made up; 10,000 take some minutes.
"""

from __future__ import annotations

import json
import os
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.answers import Shaper
from gateway.dialect import translate_chat, translate_completion
from gateway.errors import GatewayError
from gateway.metering import Tokens
from tests.gateway.constraints.made_up import NAMES, as_pattern, fits, grammars, schemas
from tests.gateway.constraints.sampling import drawn
from tests.work import calls_of

EXAMPLES = int(os.environ.get("HEARTH_CONSTRAINT_EXAMPLES", "150"))
MOST_CALLS = 5_000_000
"""A few seconds of one core at most."""
QUESTION = [{"role": "user", "content": "?"}]

pytestmark = pytest.mark.timeout(max(300, EXAMPLES))

made_up = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 150,
    suppress_health_check=list(HealthCheck),
)


def translated(translate: Any, **fields: Any) -> Any:
    """The request for the engine; none for what is refused, which must be told as the caller's mistake."""
    found = []

    def ask() -> None:
        try:
            found.append(translate({"model": "m", **fields}, 4096))
        except GatewayError as error:
            assert error.status == 400
            assert error.param
            found.append(None)

    assert calls_of(ask) < MOST_CALLS
    return found[0]


def answers(request: Any, count: int = 3) -> list[str]:
    grammar = request.body["structured_outputs"]["grammar"]
    return [answer for seed in range(count) if (answer := drawn(grammar, seed)) is not None]


def streamed(request: Any, answer: str, seed: int) -> list[dict[str, str]]:
    """The functions that a caller reads of an answer that comes in pieces."""
    shaper, draw = Shaper("m", Tokens(), calls=request.calls), random.Random(seed)
    cuts = sorted({0, len(answer), *(draw.randrange(len(answer) + 1) for _ in range(9))})
    deltas = [{"content": answer[first:after]} for first, after in pairwise(cuts)]
    ends = [None] * (len(deltas) - 1) + ["stop"]
    chunks = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in zip(deltas, ends, strict=True)
    ]
    told = [sent for chunk in chunks for sent in shaper.chunk(chunk)]
    told += shaper.end()
    functions: dict[int, dict[str, str]] = {}
    for piece in (
        call for sent in told for each in sent["choices"] for call in each["delta"].get("tool_calls", ())
    ):
        read = functions.setdefault(piece["index"], {"name": "", "arguments": ""})
        for name, text in piece["function"].items():
            read[name] += text or ""
    return list(functions.values())


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
        calls = read["message"]["tool_calls"]
        assert streamed(translated(translate_chat, **asked), answer, seed) == [
            call["function"] for call in calls
        ]
        for call in calls:
            schema = tools[int(call["function"]["name"][1:])]["function"]["parameters"]
            value = json.loads(call["function"]["arguments"])
            if not request.headers:
                assert fits(schema, value), (schema, answer)
