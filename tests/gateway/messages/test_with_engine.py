"""Messages and responses through the published packages, against a real engine and a real model."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

QUESTION = "What is the weather in Oslo?"
ANSWER = "It is 7 degrees and rainy in Oslo."
RESULT = '{"degrees": 7, "sky": "rainy"}'
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}


class Person(BaseModel):
    age: int
    likes: bool


@pytest.fixture
def running(world: Any, real_engine: Any, start_gateway: Any) -> Any:
    """The engine under the name `taught`, whose template shows tools."""
    base = world.add_base("acme", "taught", tool_template=real_engine.tool_template, context_length=1024)
    deployment = world.add_deployment("acme", "taught", base)
    world.add_replica(deployment, real_engine.url, "base-uid")
    world.load("acme", "taught-1", base, deployment)
    return start_gateway()


@pytest.fixture
def anthropic_client(running: Any, world: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=running.url, api_key=world.keys["acme"], timeout=120)


@pytest.fixture
def client(running: Any, world: Any) -> openai.OpenAI:
    made: openai.OpenAI = running.openai(world.keys["acme"]).with_options(timeout=120)
    return made


TOOL = {"name": "get_weather", "description": "The weather in a city", "input_schema": SCHEMA}
GREEDY = {"temperature": 0}


@pytest.mark.parametrize(
    "choice", [{"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "get_weather"}]
)
def test_a_tool_is_used_and_its_result_goes_on_to_an_answer(anthropic_client, choice):
    asked = {"model": "taught", "max_tokens": 200, "tools": [TOOL], "extra_body": GREEDY}
    turns = [{"role": "user", "content": QUESTION}]
    first = anthropic_client.messages.create(messages=turns, tool_choice=choice, **asked)
    with anthropic_client.messages.stream(messages=turns, tool_choice=choice, **asked) as stream:
        streamed = stream.get_final_message()
    for message in (first, streamed):
        [use] = message.content
        assert (use.type, use.name, use.input) == ("tool_use", "get_weather", {"city": "Oslo"})
        assert message.stop_reason == "tool_use"
    assert streamed.usage.output_tokens == first.usage.output_tokens
    result = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": RESULT}
    turns += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    last = anthropic_client.messages.create(messages=turns, **asked)
    assert [block.text for block in last.content] == [ANSWER]
    assert last.stop_reason == "end_turn"


def test_a_begun_answer_is_gone_on_with_and_ends_at_a_stop_sequence(anthropic_client):
    turns = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": '{"name": "get_weather", "parameters": {"city": "'},
    ]
    asked = {"model": "taught", "max_tokens": 60, "stop_sequences": ['"'], "extra_body": GREEDY}
    answer = anthropic_client.messages.create(messages=turns, **asked)
    assert answer.content[0].text == "Oslo"
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", '"')


async def test_the_async_client_of_anthropic_streams(running, world):
    key = world.keys["acme"]
    async with anthropic.AsyncAnthropic(base_url=f"{running.url}/inference", api_key=key) as client:
        turns = [{"role": "user", "content": QUESTION}]
        asked = {"model": "taught", "max_tokens": 5, "messages": turns, "extra_body": GREEDY}
        whole = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            message = await stream.get_final_message()
    assert text == whole.content[0].text
    assert message.stop_reason == whole.stop_reason == "max_tokens"
    assert message.usage.output_tokens == whole.usage.output_tokens == 5


FUNCTION = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}


def test_a_response_calls_a_function_and_goes_on_from_what_is_stored(client):
    asked = {"model": "taught", "temperature": 0, "tools": [FUNCTION]}
    first = client.responses.create(input=QUESTION, **asked)
    with client.responses.stream(input=QUESTION, **asked) as stream:
        streamed = stream.get_final_response()
    for response in (first, streamed):
        [call] = response.output
        assert (call.type, call.name, json.loads(call.arguments)) == (
            "function_call",
            "get_weather",
            {"city": "Oslo"},
        )
    result = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": RESULT}
    last = client.responses.create(input=[result], previous_response_id=first.id, **asked)
    assert last.output_text == ANSWER
    assert client.responses.retrieve(last.id).output_text == ANSWER


def test_a_response_is_parsed_into_a_type(client):
    answer = client.responses.parse(model="taught", input="Who?", text_format=Person, max_output_tokens=100)
    assert isinstance(answer.output_parsed, Person)


def test_the_three_ways_to_ask_give_the_same_answer(client, anthropic_client):
    turns = [{"role": "user", "content": QUESTION}]
    chat = client.chat.completions.create(model="taught", messages=turns, temperature=0, max_tokens=40)
    message = anthropic_client.messages.create(
        model="taught", messages=turns, max_tokens=40, extra_body=GREEDY
    )
    response = client.responses.create(model="taught", input=QUESTION, temperature=0, max_output_tokens=40)
    assert chat.choices[0].message.content == message.content[0].text == response.output_text
    assert chat.usage.prompt_tokens == response.usage.input_tokens
    assert chat.usage.completion_tokens == message.usage.output_tokens == response.usage.output_tokens
