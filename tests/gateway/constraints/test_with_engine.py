"""Schemas, grammars and functions made up by chance, asked of a real engine: no hang, no failure of the
server's, and every answer that comes to its end fits."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.constraints.formats import UNENFORCED_HEADER
from tests.gateway.constraints.made_up import NAMES, as_pattern, fits, grammars, schemas

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

QUESTION = [{"role": "user", "content": "?"}]

a_few = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture
def client(world: Any, real_engine: Any, start_gateway: Any) -> httpx.Client:
    base = world.add_base("acme", "plain", context_length=1024)
    deployment = world.add_deployment("acme", "main", base)
    world.add_replica(deployment, real_engine.url, "base-uid")
    world.load("acme", "plain-1", base, deployment)
    made: httpx.Client = start_gateway().http(world.keys["acme"])
    made.timeout = httpx.Timeout(120)
    return made


def answered(client: httpx.Client, path: str, **fields: Any) -> tuple[httpx.Headers, list[dict[str, Any]]]:
    """The answer's chunks, or its only one; none where it was refused or cut off."""
    asked = {"model": "plain", "max_tokens": 80, "temperature": 1, "seed": 1, **fields}
    answer = client.post(f"/v1/{path}", json=asked)
    if answer.status_code == 400:
        return answer.headers, []
    assert answer.status_code == 200, answer.text
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    chunks = list(map(json.loads, lines or [answer.text]))
    if "error" in chunks[-1]:
        assert chunks[-1]["error"]["code"] == "TOOL_CALL_CUT_OFF"
        return answer.headers, []
    choices = [chunk["choices"][0] for chunk in chunks]
    return answer.headers, [] if choices[-1]["finish_reason"] == "length" else choices


def completed(client: httpx.Client, **fields: Any) -> tuple[httpx.Headers, str | None]:
    headers, choices = answered(client, "completions", prompt="The ", **fields)
    return headers, "".join(each["text"] for each in choices) if choices else None


@a_few
@given(schemas(), st.booleans())
def test_an_answer_fits_its_schema(client: httpx.Client, schema: Any, stream: bool) -> None:
    asked = {"type": "json_object", "schema": schema}
    headers, text = completed(client, response_format=asked, stream=stream)
    if text is not None and UNENFORCED_HEADER not in headers:
        assert fits(schema, json.loads(text)), (schema, text)


@a_few
@given(grammars(), st.booleans())
def test_an_answer_fits_its_grammar(client: httpx.Client, grammar: str, stream: bool) -> None:
    _, text = completed(client, response_format={"type": "grammar", "grammar": grammar}, stream=stream)
    pattern = as_pattern(grammar)
    assert text is None or pattern is None or pattern.fullmatch(text), (grammar, text)


@a_few
@given(st.lists(st.dictionaries(NAMES, schemas(), max_size=3), min_size=1, max_size=3), st.booleans())
def test_a_required_call_fits_its_function(client: httpx.Client, parameters: list[Any], stream: bool) -> None:
    forms = {f"f{n}": {"type": "object", "properties": each} for n, each in enumerate(parameters)}
    tools = [
        {"type": "function", "function": {"name": name, "parameters": form}} for name, form in forms.items()
    ]
    asked = {"messages": QUESTION, "tools": tools, "tool_choice": "required", "stream": stream}
    headers, choices = answered(client, "chat/completions", **asked)
    told = [each["delta"] if stream else each["message"] for each in choices]
    functions = [call["function"] for each in told for call in each.get("tool_calls") or ()]
    assert bool(functions) == bool(choices)
    if functions and UNENFORCED_HEADER not in headers:
        arguments = "".join(each.get("arguments") or "" for each in functions)
        assert fits(forms[functions[0]["name"]], json.loads(arguments)), (forms, arguments)
