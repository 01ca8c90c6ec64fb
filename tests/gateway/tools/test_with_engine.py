"""Function calling and structured output against a real engine with the quickstart's model.

The model is tiny and was taught some tools. It calls these rightly; whatever else it is asked, its
constraints make the answer fit.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import openai
import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def function(name: str, **properties: Any) -> dict[str, Any]:
    return {
        "name": name,
        "parameters": {"type": "object", "properties": properties, "required": list(properties)},
    }


WEATHER = function("get_weather", city={"type": "string", "maxLength": 12})
LIGHTS = function("set_lights", room={"enum": ["kitchen", "lobby"]}, state={"enum": ["on", "off"]})
ROUTE = function(
    "route_ticket",
    queue={"enum": ["billing", "support"]},
    urgent={"type": "boolean"},
    tags={"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
)
FUNCTIONS = {each["name"]: each for each in (WEATHER, LIGHTS, ROUTE)}
TOOLS = [{"type": "function", "function": each} for each in FUNCTIONS.values()]
QUESTION = [{"role": "user", "content": "What is the weather in Oslo?"}]
TICKET = [{"role": "user", "content": "I was charged twice, please help"}]


@pytest.fixture
def client(world: Any, real_engine: Any, start_gateway: Any) -> openai.OpenAI:
    """The same engine under three names: the template of `taught` shows tools, that of `fire` has messages of
    the role functions, and that of `plain` neither."""
    for name, template in (
        ("taught", real_engine.tool_template),
        ("fire", "{{ role == 'functions' }}"),
        ("plain", ""),
    ):
        base = world.add_base("acme", name, tool_template=template, context_length=1024)
        deployment = world.add_deployment("acme", name, base)
        world.add_replica(deployment, real_engine.url, "base-uid")
        world.load("acme", f"{name}-1", base, deployment)
    made: openai.OpenAI = start_gateway().openai(world.keys["acme"]).with_options(timeout=120)
    return made


def create(client: openai.OpenAI, model: str = "plain", **asked: Any) -> Any:
    return client.chat.completions.create(**{"model": model, "max_tokens": 200, "temperature": 0, **asked})


def assert_right(name: str, arguments: str) -> None:
    assert jsonschema_rs.is_valid(FUNCTIONS[name]["parameters"], json.loads(arguments))


@pytest.mark.parametrize("model", ["taught", "plain"])
@pytest.mark.parametrize("choice", ["required", "any", {"type": "function"}])
def test_a_required_call_is_always_one_of_the_functions(client, model, choice):
    for seed in range(4):
        asked = {"messages": TICKET, "tools": TOOLS, "temperature": 1, "seed": seed, "n": 2}
        answer = create(client, model, extra_body={"tool_choice": choice}, **asked)
        for each in answer.choices:
            assert each.finish_reason == "tool_calls"
            [call] = each.message.tool_calls
            assert_right(call.function.name, call.function.arguments)


def test_a_strict_function_is_called_within_its_schema_by_free_choice(client):
    strict = [{"type": "function", "function": {**WEATHER, "strict": True}}]
    for seed in range(4):
        asked = {"messages": QUESTION, "tools": strict, "temperature": 1.5, "seed": seed, "max_tokens": 60}
        answer = create(client, "taught", **asked).choices[0]
        for call in answer.message.tool_calls or []:
            if answer.finish_reason == "tool_calls":
                assert_right(call.function.name, call.function.arguments)


def test_a_model_that_was_taught_a_tool_calls_it_rightly(client):
    for choice in ("auto", "required", {"type": "function", "function": {"name": "get_weather"}}):
        answer = create(client, "taught", messages=QUESTION, tools=TOOLS, tool_choice=choice)
        [call] = answer.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
        assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_streamed_call_is_the_same_as_a_whole_one(client, choice):
    asked = {"model": "taught", "messages": QUESTION, "tools": TOOLS, "tool_choice": choice, "temperature": 0}
    with client.chat.completions.stream(**asked) as stream:
        answer = stream.get_final_completion()
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
    assert answer.choices[0].finish_reason == "tool_calls"


def test_several_calls_come_in_one_answer(client):
    answer = create(
        client, messages=TICKET, tools=TOOLS, tool_choice="required", parallel_tool_calls=True, max_tokens=600
    )
    assert len(answer.choices[0].message.tool_calls) >= 1
    for call in answer.choices[0].message.tool_calls:
        assert_right(call.function.name, call.function.arguments)


@pytest.mark.parametrize("model", ["taught", "plain"])
def test_a_call_and_its_result_go_on_to_an_answer(client, model):
    answer = create(client, model, messages=QUESTION, tools=TOOLS, tool_choice="required").choices[0].message
    [call] = answer.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"degrees": 7, "sky": "rainy"}'}
    last = create(client, model, messages=[*QUESTION, answer, result], max_tokens=40)
    assert last.choices[0].message.content
    if model == "taught":
        assert last.choices[0].message.content == "It is 7 degrees and rainy in Oslo."


def test_the_older_functions_work_the_older_way(client):
    asked = {"messages": TICKET, "functions": [ROUTE], "function_call": {"name": "route_ticket"}}
    answer = create(client, **asked).choices[0]
    assert_right(answer.message.function_call.name, answer.message.function_call.arguments)
    assert answer.finish_reason == "function_call"
    chunks = [chunk.choices[0] for chunk in create(client, stream=True, **asked)]
    parts = [chunk.delta.function_call for chunk in chunks if chunk.delta.function_call]
    assert_right("".join(part.name or "" for part in parts), "".join(part.arguments or "" for part in parts))
    assert chunks[-1].finish_reason == "function_call"


@pytest.mark.parametrize("model", ["taught", "fire", "plain"])
def test_functions_in_a_message_are_offered(client, model):
    listed = {"role": "functions", "content": json.dumps([ROUTE], indent=4)}
    answer = create(client, model, messages=[listed, *TICKET], extra_body={"tool_choice": "any"})
    [call] = answer.choices[0].message.tool_calls
    assert_right(call.function.name, call.function.arguments)


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "pets": {"type": "array", "items": {"enum": ["cat", "dog"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
}
FORMATS = [
    {"type": "json_object", "schema": SCHEMA},
    {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}},
]


@pytest.mark.parametrize("wanted", FORMATS)
def test_json_fits_its_schema_in_chat_and_completions_streamed_or_not(client, wanted):
    texts = []
    for stream in (False, True):
        asked = {
            "messages": TICKET,
            "extra_body": {"response_format": wanted},
            "temperature": 1,
            "stream": stream,
        }
        answer = create(client, **asked)
        if stream:
            texts.append("".join(chunk.choices[0].delta.content or "" for chunk in answer))
        else:
            texts.append(answer.choices[0].message.content)
    done = client.completions.create(
        model="plain", prompt="x", max_tokens=200, extra_body={"response_format": wanted}
    )
    texts.append(done.choices[0].text)
    assert [text for text in texts if not jsonschema_rs.is_valid(SCHEMA, json.loads(text))] == []


def test_any_json_object_is_one_or_says_that_it_was_cut_off(client):
    for seed in range(3):
        asked = {
            "messages": TICKET,
            "response_format": {"type": "json_object"},
            "temperature": 1,
            "seed": seed,
        }
        answer = create(client, **asked).choices[0]
        if answer.finish_reason == "stop":
            assert isinstance(json.loads(answer.message.content), dict)
        else:
            assert answer.finish_reason == "length"


GRAMMARS = [
    (
        'root ::= diagnosis\ndiagnosis ::= "arthritis" | "dengue" | "urinary tract infection"',
        "arthritis|dengue|urinary tract infection",
    ),
    ("root ::= jp+ ([ \n] jp+)?\njp ::= [ぁ-ゟ] | [\\u30a1-\\u30ff]", "[ぁ-ゟァ-ヿ]+([ \n][ぁ-ゟァ-ヿ]+)?"),
    ('root ::= ("- " item){1,3}\nitem ::= [a-z]{1,9} "\\n"', "(- [a-z]{1,9}\n){1,3}"),
    ('root ::= ([a-c]+ " "*)* "!"', "([a-c]+ *)*!"),
]


@pytest.mark.parametrize(("grammar", "pattern"), GRAMMARS)
def test_text_follows_its_grammar(client, grammar, pattern):
    wanted = {"response_format": {"type": "grammar", "grammar": grammar}}
    answer = create(client, messages=TICKET, temperature=1, extra_body=wanted, max_tokens=60).choices[0]
    done = client.completions.create(model="plain", prompt="x", max_tokens=60, extra_body=wanted).choices[0]
    for text, reason in ((answer.message.content, answer.finish_reason), (done.text, done.finish_reason)):
        assert reason == "length" or re.fullmatch(pattern, text)


def test_a_call_that_the_context_cuts_off_is_an_error(client):
    with pytest.raises(openai.BadRequestError, match="needs more tokens"):
        create(client, messages=TICKET, tools=TOOLS, tool_choice="required", max_tokens=5)
