"""Messages as Anthropic's own package asks for them, answered by an engine that the tests steer."""

import json

import anthropic
import httpx
import pytest
from sqlalchemy import select

from controlplane.resources.tables import LedgerRow
from tests.gateway.serving import wait_until

QUESTION = [{"role": "user", "content": "count"}]


@pytest.fixture
def client(served):
    return anthropic.Anthropic(base_url=served.running.url, api_key=served.key, max_retries=0, timeout=30)


def ask(client, served, **asked):
    return client.messages.create(**{"model": served.base, "max_tokens": 50, "messages": QUESTION, **asked})


def test_a_message_is_answered_by_a_chat(client, served):
    answer = ask(client, served, system="Be brief.", stop_sequences=["four"], extra_body={"top_k": 5})
    assert [block.text for block in answer.content] == ["one two three"]
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", served.base)
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (3, 4)
    assert answer.usage.output_tokens == 3
    [body] = served.engine.bodies
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, *QUESTION]
    assert (body["stop"], body["top_k"], body["max_tokens"]) == (["four"], 5, 50)


@pytest.mark.parametrize("prefix", ["", "/inference"])
async def test_the_async_client_streams_events_in_their_order(served, prefix):
    url = served.running.url + prefix
    async with anthropic.AsyncAnthropic(base_url=url, api_key=served.key) as client:
        stream = await ask(client, served, stream=True)
        events = [event async for event in stream]
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0].message.usage.input_tokens == 7
    assert events[-2].delta.stop_reason == "end_turn"


def test_the_stream_helper_puts_the_same_message_together(client, served):
    asked = {"model": served.base, "max_tokens": 50, "messages": QUESTION}
    with client.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == "one two three"
        message = stream.get_final_message()
    assert message.usage.output_tokens == 3
    assert message.usage.cache_read_input_tokens == 4


@pytest.mark.parametrize(("finish", "reason"), [("stop", "end_turn"), ("length", "max_tokens")])
def test_the_end_has_its_reason(client, served, finish, reason):
    served.engine.finish = finish
    assert ask(client, served).stop_reason == reason


WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_call_comes_as_a_tool_use(client, served, stream):
    served.engine.tokens = ['{"name": "get_weather", ', '"arguments": {"city"', ': "Oslo"}}']
    asked = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather"}}
    if stream:
        fields = {"model": served.base, "max_tokens": 50, "messages": QUESTION}
        with client.messages.stream(**fields, **asked) as events:
            answer = events.get_final_message()
    else:
        answer = ask(client, served, **asked)
    [block] = answer.content
    assert (block.type, block.name, block.input) == ("tool_use", "get_weather", {"city": "Oslo"})
    assert answer.stop_reason == "tool_use"
    assert "structured_outputs" in served.engine.bodies[0]


def test_calls_and_results_of_earlier_turns_reach_the_model(client, served):
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain", "is_error": True}
    turns = [
        *QUESTION,
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]},
        {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]},
    ]
    ask(client, served, messages=turns)
    roles = [message["role"] for message in served.engine.bodies[0]["messages"]]
    texts = json.dumps(served.engine.bodies[0]["messages"])
    assert roles[:2] == ["user", "assistant"]
    assert "The call failed:" in texts
    assert "rain" in texts
    assert "Oslo" in texts
    assert "And now?" in texts


def test_an_answer_that_was_begun_is_gone_on_with(client, served):
    ask(client, served, messages=[*QUESTION, {"role": "assistant", "content": "one, two,"}])
    [body] = served.engine.bodies
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_turns_of_one_role_become_one(client, served):
    ask(client, served, messages=[*QUESTION, {"role": "user", "content": "again"}])
    [message] = served.engine.bodies[0]["messages"]
    assert [part["text"] for part in message["content"]] == ["count", "again"]


def test_an_answer_is_held_to_its_format(client, served):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    ask(client, served, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert "grammar" in served.engine.bodies[0]["structured_outputs"]


def test_no_key_and_a_wrong_key_are_told_in_anthropics_shape(served):
    asked = {"model": served.base, "max_tokens": 5, "messages": QUESTION}
    for headers in ({}, {"x-api-key": "fw_wrong"}):
        answer = httpx.post(f"{served.running.url}/v1/messages", json=asked, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.json()["type"] == "error"
    absent = httpx.post(f"{served.running.url}/v1/messages/count_tokens", json=asked)
    assert (absent.status_code, absent.json()["error"]["type"]) == (404, "not_found_error")
    wrong_method = httpx.get(f"{served.running.url}/v1/messages", headers={"x-api-key": served.key})
    assert wrong_method.status_code == 405
    assert wrong_method.json()["error"]["type"] == "invalid_request_error"


def test_errors_are_those_of_anthropics_package(client, served):
    with pytest.raises(anthropic.NotFoundError) as absent:
        ask(client, served, model="accounts/acme/models/none")
    assert absent.value.body["error"]["type"] == "not_found_error"
    served.engine.fault = "500"
    with pytest.raises(anthropic.InternalServerError) as broken:
        ask(client, served)
    assert broken.value.body["error"] == {
        "type": "api_error",
        "message": "the model's engine failed to answer",
    }


@pytest.mark.parametrize("fault", ["die-midway", "error-midway"])
def test_a_stream_that_breaks_off_ends_with_an_error(client, served, fault):
    served.engine.fault = fault
    with pytest.raises(anthropic.APIStatusError, match="stopped in the middle"):
        list(ask(client, served, stream=True))


def test_an_answer_that_nobody_waits_for_is_given_up(client, served):
    served.engine.endless = True
    with ask(client, served, stream=True) as stream:
        next(iter(stream))
    wait_until(lambda: served.engine.left == 1)
    wait_until(lambda: served.running.gateway.admission.held == {})


def test_usage_is_written_to_the_ledger_under_its_own_endpoint(client, served):
    ask(client, served)

    def entries():
        with served.world.db.session() as session:
            return session.scalars(select(LedgerRow)).all()

    [entry] = wait_until(entries)
    assert (entry.endpoint, entry.prompt_tokens, entry.completion_tokens) == ("messages", 7, 3)


BASE64 = {"type": "base64", "media_type": "application/pdf", "data": "eA=="}
WRONG = [
    ({"frobnicate": 1}, "Extra inputs are not permitted, field: 'frobnicate', value: 1"),
    ({"messages": []}, "'messages' must be a list of at least one message"),
    ({"messages": [{"role": "system", "content": "x"}]}, "'messages[0].role' must be one of user, assistant"),
    ({"messages": [{"role": "user", "content": []}]}, "'messages[0].content' must be a string or a list"),
    ({"max_tokens": 0}, "'max_tokens' must be an integer of at least 1"),
    ({"temperature": 1.5}, "'temperature' must be a number from 0 to 1"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "'tools[0].type' is not supported"),
    ({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "'tools[0].name' must be 1 to 64"),
    ({"tools": [{"name": "a", "input_schema": {"type": "string"}}]}, "'tools[0].input_schema' must be the"),
    ({"tool_choice": {"type": "any"}}, "'tool_choice' asks for a tool, but there are no 'tools'"),
    ({"tool_choice": {"type": "some"}}, "'tool_choice.type' must be auto, any, tool or none"),
    ({"output_config": {"format": {"type": "xml"}}}, "'output_config.format.type' must be json_schema"),
    (
        {"messages": [{"role": "user", "content": [{"type": "document", "source": BASE64}]}]},
        "'messages[0].content[0].type' is not supported: document blocks",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a"}]}]},
        "'messages[0].content[0].type' is 'tool_use', which may not stand here",
    ),
    (
        {"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]},
        "'messages[0].content[0].type' is not supported: redacted_thinking blocks",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_what_is_wrong_is_refused_in_the_callers_own_words(served, wrong, message):
    asked = {"model": served.base, "max_tokens": 5, "messages": QUESTION, **wrong}
    answer = served.http.post("/v1/messages", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert message in answer.json()["error"]["message"]
    assert served.engine.requests == []
