"""Function calling and structured output through the gateway, asked by the published openai package."""

import json
import re

import openai
import pytest
from sqlalchemy import select

from controlplane.resources.tables import DeploymentRow, ModelRow, ReplicaRow

QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOLS = [{"type": "function", "function": WEATHER}]
CALL = '{"name": "get_weather", "arguments": {"city": "Paris, \\"F\\""}}'
ARGUMENTS = {"city": 'Paris, "F"'}


@pytest.fixture
def calling(served):
    """The engine answers with a call, in pieces of three letters."""
    served.engine.tokens = re.findall("(?s).{1,3}", CALL)
    return served


def test_a_call_and_its_result_make_an_answer(calling):
    messages = list(QUESTION)
    answer = calling.openai.chat.completions.create(
        model=calling.base, messages=messages, tools=TOOLS, tool_choice="required"
    )
    [call] = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == ARGUMENTS
    assert answer.choices[0].finish_reason == "tool_calls"
    messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "60"}]
    calling.engine.tokens = ["It is ", "60."]
    answer = calling.openai.chat.completions.create(model=calling.base, messages=messages, tools=TOOLS)
    assert answer.choices[0].message.content == "It is 60."
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"
    roles = [message["role"] for message in calling.engine.bodies[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_the_openai_package_puts_a_streamed_call_together(calling, choice):
    with calling.openai.chat.completions.stream(
        model=calling.base, messages=QUESTION, tools=TOOLS, tool_choice=choice
    ) as stream:
        answer = stream.get_final_completion()
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", ARGUMENTS)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage.completion_tokens == len(calling.engine.tokens)


def test_a_streamed_answer_in_words_is_passed_on_in_pieces(served):
    stream = served.openai.chat.completions.create(
        model=served.base, messages=QUESTION, tools=TOOLS, stream=True
    )
    assert [chunk.choices[0].delta.content for chunk in stream] == ["one ", "two ", "three"]


def test_the_older_functions_are_answered_in_the_older_shape(calling):
    asked = {"model": calling.base, "messages": QUESTION, "functions": [WEATHER]}
    answer = calling.openai.chat.completions.create(**asked, function_call={"name": "get_weather"})
    assert json.loads(answer.choices[0].message.function_call.arguments) == ARGUMENTS
    assert answer.choices[0].finish_reason == "function_call"
    chunks = list(calling.openai.chat.completions.create(**asked, stream=True))
    calls = [chunk.choices[0].delta.function_call for chunk in chunks if chunk.choices[0].delta.function_call]
    assert [call.name for call in calls if call.name] == ["get_weather"]
    assert json.loads("".join(call.arguments or "" for call in calls)) == ARGUMENTS
    assert chunks[-1].choices[0].finish_reason == "function_call"


def test_a_call_that_is_cut_off_is_an_error_that_names_what_to_raise(calling):
    calling.engine.finish = "length"
    calling.engine.tokens = calling.engine.tokens[:-3]
    asked = {"model": calling.base, "messages": QUESTION, "tools": TOOLS, "tool_choice": "required"}
    with pytest.raises(openai.BadRequestError) as refused:
        calling.openai.chat.completions.create(**asked)
    assert (refused.value.code, refused.value.param) == ("TOOL_CALL_CUT_OFF", "max_tokens")
    with pytest.raises(openai.APIError) as refused:
        list(calling.openai.chat.completions.create(**asked, stream=True))
    assert refused.value.body["code"] == "TOOL_CALL_CUT_OFF"


def test_a_call_that_does_not_fit_is_an_error_in_an_answer_and_in_a_stream(served):
    served.engine.tokens = ['{"name": "get_weather", ', '"arguments": {"town": 1}}']
    asked = {"model": served.base, "messages": QUESTION, "tools": TOOLS, "tool_choice": "required"}
    with pytest.raises(openai.InternalServerError, match="do not fit its schema"):
        served.openai.chat.completions.create(**asked)
    with pytest.raises(openai.APIError, match="do not fit its schema"):
        list(served.openai.chat.completions.create(**asked, stream=True))


def test_parts_of_a_schema_that_are_not_enforced_are_told_in_a_header(served):
    schema = {"properties": {"a": {"type": "string", "pattern": "x"}}}
    wanted = {"type": "json_object", "schema": schema}
    for path, asked in (("completions", {"prompt": "?"}), ("chat/completions", {"messages": QUESTION})):
        for stream in (False, True):
            body = {"model": served.base, "response_format": wanted, "stream": stream, **asked}
            answer = served.http.post(f"/v1/{path}", json=body)
            assert answer.status_code == 200
            assert answer.headers["hearth-schema-not-enforced"] == "pattern at #/properties/a"
    assert all("structured_outputs" in body for body in served.engine.bodies)


def test_json_that_is_cut_off_is_passed_on_with_its_reason(served):
    served.engine.tokens, served.engine.finish = ['{"a": ', "[1,"], "length"
    asked = {"model": served.base, "messages": QUESTION, "response_format": {"type": "json_object"}}
    answer = served.openai.chat.completions.create(**asked)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ('{"a": [1,', "length")
    chunks = list(served.openai.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == '{"a": [1,'
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_wrong_grammar_is_told_with_its_place_and_never_reaches_the_engine(served):
    wanted = {"type": "grammar", "grammar": "root ::= item\nitem ::= [a-"}
    with pytest.raises(openai.BadRequestError) as refused:
        served.openai.chat.completions.create(
            model=served.base, messages=QUESTION, extra_body={"response_format": wanted}
        )
    assert refused.value.param == "response_format.grammar"
    assert "line 2, column 10" in refused.value.message
    assert served.engine.requests == []


@pytest.fixture
def native(served):
    """A second model, whose template shows tools in a form that the engine reads."""
    world = served.world
    base = world.add_base("acme", "hermes", tool_template="<tool_call>{{ tools }}{{ messages }}</tool_call>")
    deployment = world.add_deployment("acme", "hermes", base)
    world.add_replica(deployment, served.engine_url, "base-uid")
    world.load("acme", "hermes-1", base, deployment)
    served.running.until_routed(lambda gateway: ("acme", "hermes") in gateway.snapshot.by_model)
    return served


def test_a_template_that_shows_tools_is_given_them_and_the_engine_finds_the_calls(native):
    asked = {"model": "hermes", "messages": QUESTION, "tools": TOOLS}
    assert native.openai.chat.completions.create(**asked).choices[0].message.content == "one two three"
    native.engine.tokens = [CALL]
    answer = native.openai.chat.completions.create(**asked, tool_choice="required")
    assert answer.choices[0].finish_reason == "tool_calls"
    free, forced = native.engine.bodies
    assert (free["tools"], free["tool_choice"]) == (TOOLS, "auto")
    assert (forced["tools"], forced["tool_choice"]) == (TOOLS, "none")
    assert "structured_outputs" not in free
    assert "get_weather" in forced["structured_outputs"]["grammar"]


def test_an_addon_is_asked_in_the_form_of_its_base(native):
    world = native.world
    with world.db.session() as session:
        base = session.scalars(select(ModelRow.uid).where(ModelRow.id == "hermes")).one()
        deployment = session.scalars(select(DeploymentRow.uid).where(DeploymentRow.id == "hermes")).one()
        replica = session.scalars(select(ReplicaRow.uid).where(ReplicaRow.deployment_uid == deployment)).one()
    loaded = world.load("acme", "kin-1", world.add_addon("acme", "kin", base), deployment)
    world.prove(replica, loaded, "addon-uid")
    native.running.until_routed(lambda gateway: ("acme", "kin") in gateway.snapshot.by_model)
    native.openai.chat.completions.create(model="kin", messages=QUESTION, tools=TOOLS)
    assert (native.engine.bodies[-1]["model"], native.engine.bodies[-1]["tools"]) == ("addon-uid", TOOLS)
