"""What a request says of functions, and what the engine is told for it."""

import json

import pytest

from controlplane.checks.tool_calls import CallForm
from gateway.dialect import translate_chat
from gateway.errors import GatewayError
from tests.gateway.constraints.sampling import accepts

QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
WEATHER = {
    "name": "get_weather",
    "description": "Get the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TIME = {"name": "get_time"}
TOOLS = [{"type": "function", "function": each} for each in (WEATHER, TIME)]
NATIVE = CallForm("hermes")
NAMED = {"type": "function", "function": {"name": "get_weather"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}

GET_WEATHER = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
GET_TIME = '{"name": "get_time", "arguments": {}}'
BOTH = f"[{GET_WEATHER}, {GET_TIME}]"
BAD = ['{"name": "none", "arguments": {}}', '{"name": "get_weather", "arguments": {}}', '{"name"', ""]


def chat(form=NATIVE, messages=(QUESTION,), **fields):
    return translate_chat({"model": "m", "messages": list(messages), **fields}, 4096, None, form)


def grammar(**fields):
    return chat(**fields).body["structured_outputs"]["grammar"]


CHOICES = [
    ({"tool_choice": "required"}, [GET_WEATHER, GET_TIME], ["hello", BOTH, *BAD]),
    ({"tool_choice": "any"}, [GET_WEATHER, GET_TIME], ["hello", BOTH, *BAD]),
    ({"tool_choice": {"type": "function"}}, [GET_WEATHER, GET_TIME], ["hello", *BAD]),
    ({"tool_choice": {"type": "function", "function": {"name": ""}}}, [GET_WEATHER, GET_TIME], ["hello"]),
    ({"tool_choice": NAMED}, [GET_WEATHER], [GET_TIME, "hello", *BAD]),
    ({"tool_choice": {"type": "function", "name": "get_time"}}, [GET_TIME], [GET_WEATHER]),
    ({"tool_choice": "required", "parallel_tool_calls": True}, [BOTH, f"[{GET_TIME}]"], [GET_TIME, "[]"]),
    ({"form": CallForm()}, [GET_WEATHER, f"\n {GET_TIME}", "hello", "[1]", ""], [*BAD[:3], " {"]),
    ({"form": CallForm(), "parallel_tool_calls": True}, [BOTH, "hello"], [GET_TIME, "[1]"]),
]


@pytest.mark.parametrize(("asked", "good", "bad"), CHOICES)
def test_the_choice_says_what_the_answer_may_be(asked, good, bad):
    told = grammar(tools=TOOLS, **asked)
    assert [text for text in good if not accepts(told, text)] == []
    assert [text for text in bad if accepts(told, text)] == []


def test_the_older_functions_say_the_same_as_tools():
    for choice in ("auto", {"name": "get_weather"}):
        older = chat(CallForm(), functions=[WEATHER, TIME], function_call=choice)
        named = {"type": "function", "function": choice} if isinstance(choice, dict) else choice
        newer = chat(CallForm(), tools=TOOLS, tool_choice=named, parallel_tool_calls=False)
        assert older.body == newer.body


def test_a_model_is_shown_tools_by_its_own_template():
    body = chat(tools=TOOLS).body
    assert (body["tools"], body["tool_choice"]) == (TOOLS, "auto")
    assert body["messages"] == [QUESTION]
    assert "structured_outputs" not in body
    assert chat(tools=TOOLS, parallel_tool_calls=False).body["parallel_tool_calls"] is False
    forced = chat(tools=TOOLS, tool_choice="required").body
    assert (forced["tools"], forced["tool_choice"]) == (TOOLS, "none")


def test_other_models_are_told_of_functions_before_all_else():
    system = {"role": "system", "content": "Be brief."}
    told = chat(CallForm(), [system, QUESTION], tools=TOOLS).body["messages"]
    assert told[1:] == [QUESTION]
    words = told[0]["content"]
    assert words.endswith("\n\nBe brief.")
    assert json.dumps(WEATHER) in words
    assert '{"name": <its name>, "arguments": <an object>}' in words
    assert "plain words" in words
    assert [each["role"] for each in chat(CallForm(), tools=TOOLS).body["messages"]] == ["system", "user"]
    forced = chat(CallForm(arguments="parameters"), tools=TOOLS, tool_choice=NAMED).body["messages"][0][
        "content"
    ]
    assert '"parameters": <an object>' in forced
    assert "plain words" not in forced


def test_a_model_without_system_messages_is_told_in_the_first_question():
    told = chat(CallForm(system_role=False), tools=TOOLS).body["messages"]
    assert [each["role"] for each in told] == ["user"]
    assert told[0]["content"].endswith("\n\nWhat is the weather in Paris?")


def test_a_template_with_the_role_functions_is_given_such_a_message():
    told = chat(CallForm(functions_role=True), tools=TOOLS).body["messages"]
    assert told == [{"role": "functions", "content": json.dumps([WEATHER, TIME], indent=4)}, QUESTION]


def test_a_message_of_the_role_functions_offers_them_to_any_model():
    listed = {"role": "functions", "content": json.dumps([WEATHER, TIME], indent=4)}
    for form in (NATIVE, CallForm(), CallForm(functions_role=True)):
        request = chat(form, [listed, QUESTION], tool_choice="any")
        assert request.body == chat(form, tools=TOOLS, tool_choice="any").body


def test_no_tools_are_shown_when_none_may_be_called():
    assert chat(tools=TOOLS, tool_choice="none").body == chat().body
    assert chat(functions=[TIME], function_call="none").body == chat().body


RESULTS = [
    QUESTION,
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "60", "tool_call_id": "c1"},
]


@pytest.mark.parametrize("form", [NATIVE, CallForm(shows_calls=True)])
def test_a_conversation_with_calls_is_passed_on_to_a_template_that_shows_them(form):
    assert chat(form, RESULTS).body["messages"] == RESULTS


def test_any_other_template_is_given_calls_and_results_as_text():
    two = {**CALL, "id": "c2", "function": {"name": "get_time", "arguments": ""}}
    called = {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, two]}
    results = [
        {"role": "tool", "content": text, "tool_call_id": call_id}
        for text, call_id in (("60", "c1"), ("noon", "c2"))
    ]
    assert chat(CallForm(), [QUESTION, called, *results]).body["messages"] == [
        QUESTION,
        {"role": "assistant", "content": f"Let me see.\n[{GET_WEATHER}, {GET_TIME}]"},
        {"role": "user", "content": "get_weather returned: 60\n\nget_time returned: noon"},
    ]


def test_a_result_without_an_id_belongs_to_the_call_before_it():
    two = {**CALL, "id": "c2"}
    messages = [
        QUESTION,
        {"role": "assistant", "tool_calls": [CALL, two]},
        {"role": "tool", "content": "60"},
        {"role": "tool", "content": "61"},
    ]
    assert [each.get("tool_call_id") for each in chat(messages=messages).body["messages"]] == [
        None,
        None,
        "c1",
        "c2",
    ]


def test_an_older_conversation_is_read_as_tool_calls():
    call = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    messages = [
        QUESTION,
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "get_weather", "content": "60"},
    ]
    _, called, result = chat(messages=messages).body["messages"]
    assert called["tool_calls"][0]["function"] == call
    assert result["role"] == "tool"
    assert result["tool_call_id"] == called["tool_calls"][0]["id"]


def test_an_answer_is_given_back_as_the_openai_package_has_it():
    answer = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [{**CALL, "index": 0}],
    }
    assert chat(messages=[QUESTION, answer, RESULTS[2]]).body["messages"][1] == {
        **RESULTS[1],
        "content": None,
    }
    plain = {"role": "assistant", "content": "hi", "tool_calls": []}
    assert chat(messages=[QUESTION, plain]).body["messages"][1] == {"role": "assistant", "content": "hi"}


def test_an_answer_that_was_cut_off_before_its_first_word_is_given_back():
    sent = [QUESTION, {"role": "assistant", "content": None}, QUESTION]
    assert chat(messages=sent).body["messages"][1]["content"] == ""


def test_a_call_that_is_given_back_without_its_id_gets_one():
    unnamed = {key: value for key, value in CALL.items() if key != "id"}
    given = {"role": "assistant", "content": None, "tool_calls": [unnamed]}
    body = chat(messages=[QUESTION, given, {"role": "tool", "content": "rain"}], tools=TOOLS).body
    assert body["messages"][1]["tool_calls"][0]["id"] == body["messages"][2]["tool_call_id"] != ""


def test_what_of_the_parameters_cannot_be_enforced_is_listed():
    loose = {"name": "f", "parameters": {"properties": {"a": {"type": "string", "pattern": "x"}}}}
    request = chat(tools=[{"function": loose}], tool_choice="required")
    assert request.headers == [(b"hearth-schema-not-enforced", b"f: pattern at #/properties/a")]


def function(name, **properties):
    return {"name": name, "parameters": {"properties": properties}}


def tool(**function):
    return {"tools": [{"type": "function", "function": function}]}


MANY = [
    {"function": function("f" + str(number), **{f"p{each}": {"type": "string"} for each in range(100)})}
    for number in range(64)
]
LOOSE = {"properties": {"a": {"type": "string", "pattern": "x"}}}
WRONG = [
    ({"tool_choice": "required"}, "tool_choice", "there are no 'tools'"),
    ({"function_call": {"name": "f"}}, "function_call", "there are no 'tools'"),
    (
        {"tools": TOOLS, "tool_choice": "sometimes"},
        "tool_choice",
        "must be auto, none, any, required or a function",
    ),
    ({"tools": TOOLS, "tool_choice": {"type": "code"}}, "tool_choice.type", "must be function"),
    (
        {"tools": TOOLS, "tool_choice": {"type": "function", "name": "f"}},
        "tool_choice",
        "names 'f', which is none",
    ),
    ({"functions": [TIME], "function_call": {"name": "f"}}, "function_call", "names 'f', which is none"),
    ({"tools": TOOLS, "functions": [TIME]}, "functions", "only one of"),
    ({"functions": [TIME], "parallel_tool_calls": True}, "parallel_tool_calls", "holds one call"),
    ({"tools": TOOLS, "parallel_tool_calls": "yes"}, "parallel_tool_calls", "must be true or false"),
    ({"tools": "x"}, "tools", "must be a list of tools"),
    ({"tools": [{"type": "magic"}]}, "tools[0].type", "must be function"),
    ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1]", "has the name of another function, get_weather"),
    ({"tools": MANY, "tool_choice": "any"}, "tools", "its schemas are too large together"),
    (tool(name="f", description="x" * 300_000), "tools", "is larger than 262144 bytes"),
    ({"tools": TOOLS * 65}, "tools", "128 functions at most"),
    (tool(name="a b"), "tools[0].function.name", "1 to 64"),
    (tool(name="x" * 65), "tools[0].function.name", "1 to 64"),
    (tool(name="f", mood=1), "tools[0].function.mood", "Extra inputs"),
    (tool(name="f", parameters=[]), "tools[0].function.parameters", "must be an object"),
    (
        tool(name="f", parameters={"type": "string"}),
        "tools[0].function.parameters",
        "the schema of an object",
    ),
    (tool(name="f", parameters={"type": 1}), "tools[0].function.parameters", "no valid JSON Schema"),
    (
        tool(name="f", parameters={"properties": {"a": {"$ref": "#/a"}}}),
        "tools[0].function.parameters",
        "there is nothing at #/a",
    ),
    (
        tool(name="f", strict=True, parameters=LOOSE),
        "tools[0].function.parameters",
        "cannot be kept to strictly: pattern at #/properties/a",
    ),
    ({"functions": [{"name": ""}]}, "functions[0].name", "1 to 64"),
    ({"tools": TOOLS, "tool_choice": "auto", "function_call": "none"}, "function_call", "give one of them"),
    (
        {"tools": TOOLS, "response_format": {"type": "json_object"}},
        "response_format",
        "together with 'tools'",
    ),
    ({"tools": TOOLS, "tool_choice": "any", "ignore_eos": True}, "ignore_eos", "together with 'tools'"),
    ({"messages": [QUESTION, {"role": "tool", "content": "x"}]}, "messages[1]", "tool_call_id"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0]", "role assistant"),
    (
        {"messages": [{"role": "functions", "content": "[]"}, QUESTION]},
        "messages[0].content",
        "a list of functions",
    ),
    (
        {"messages": [{"role": "functions", "content": "{"}, QUESTION]},
        "messages[0].content",
        "a list of functions",
    ),
    ({"messages": [{"role": "functions", "content": '[{"name": "f"}]'}]}, "messages", "besides"),
    (
        {"messages": [{"role": "functions", "content": '[{"name": "f"}]'}, QUESTION], "tools": TOOLS},
        "messages",
        "not in both",
    ),
    (
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}],
                }
            ]
        },
        "messages[0].tool_calls[0].function.arguments",
        "must be the JSON text of an object",
    ),
]


@pytest.mark.parametrize(("asked", "param", "message"), WRONG)
def test_what_is_wrong_is_refused_by_name(asked, param, message):
    with pytest.raises(GatewayError) as refused:
        chat(**{"messages": [QUESTION], **asked})
    assert (refused.value.status, refused.value.param) == (400, param)
    assert message in refused.value.message
