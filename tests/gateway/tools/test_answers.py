"""Calls in answers and streams, as callers read them: right, or an error that says what is wrong."""

import json
import re

import pytest

from controlplane.checks.tool_calls import CallForm
from gateway.answers import Shaper
from gateway.dialect import translate_chat
from gateway.metering import Tokens
from gateway.tools.answers import WrongCall

WEATHER = {
    "name": "get_weather",
    "parameters": {"properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOLS = [{"type": "function", "function": each} for each in (WEATHER, {"name": "get_time"})]
PLAIN, NATIVE = CallForm(), CallForm("hermes")
GET_WEATHER = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
GET_TIME = '{"name": "get_time", "arguments": {}}'
ID = re.compile(r"call_[a-zA-Z0-9]{24}")


def shaper(form=PLAIN, **fields):
    fields = {"tools": TOOLS, **fields} if "functions" not in fields else fields
    asked = {"model": "m", "messages": [{"role": "user", "content": "?"}], **fields}
    return Shaper("m", Tokens(), calls=translate_chat(asked, 4096, None, form).calls)


def whole(message, form=PLAIN, finish="stop", stop_reason=None, **fields):
    message = {"content": message} if isinstance(message, str) else message
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    answer = {"choices": [{**choice, "stop_reason": stop_reason}]}
    [shaped] = shaper(form, **fields).whole(answer)["choices"]
    return shaped


def streamed(deltas, form=PLAIN, finish="stop", **fields):
    """The deltas that a caller reads, and the finish reason, of an engine's deltas."""
    made, read = shaper(form, **fields), []
    parts = [{"content": each} if isinstance(each, str) else each for each in deltas]
    for number, delta in enumerate(parts, 1):
        choice = {"index": 0, "delta": delta, "finish_reason": finish if number == len(parts) else None}
        usage = {"prompt_tokens": 7, "completion_tokens": number}
        read += made.chunk({"choices": [choice], "usage": usage})
    read += made.chunk({"choices": [], "usage": usage})
    read += made.end()
    assert [chunk["usage"] is None for chunk in read] == [True] * (len(read) - 1) + [False]
    choices = [chunk["choices"][0] for chunk in read]
    assert all(choice["finish_reason"] is None for choice in choices[:-1])
    return [choice["delta"] for choice in choices], choices[-1]["finish_reason"]


def call(name, arguments):
    return {"id": "engine-1", "type": "function", "function": {"name": name, "arguments": arguments}}


def put_together(deltas):
    """As the openai package's readers do."""
    calls = []
    for delta in deltas:
        for part in delta.get("tool_calls", []):
            if part["index"] == len(calls):
                assert ID.fullmatch(part["id"])
                assert part["type"] == "function"
                calls.append([part["function"]["name"], ""])
            else:
                assert part.keys() == {"index", "function"}
                assert part["function"].keys() == {"arguments"}
            calls[part["index"]][1] += part["function"]["arguments"]
    return [tuple(each) for each in calls]


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "name": "get_weather"}])
def test_a_call_is_told_in_the_openai_shape(choice):
    answer = whole(GET_WEATHER, tool_choice=choice)
    [made] = answer["message"]["tool_calls"]
    assert ID.fullmatch(made.pop("id"))
    assert made == {
        "index": 0,
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    assert answer["message"]["content"] is None
    assert answer["finish_reason"] == "tool_calls"


def test_several_calls_come_in_one_answer():
    text = f"[{GET_WEATHER}, {GET_TIME}]"
    answer = whole(text, tool_choice="required", parallel_tool_calls=True)
    assert [each["function"]["name"] for each in answer["message"]["tool_calls"]] == [
        "get_weather",
        "get_time",
    ]
    deltas, reason = streamed(list(text), tool_choice="required", parallel_tool_calls=True)
    assert put_together(deltas) == [("get_weather", '{"city": "Paris"}'), ("get_time", "{}")]
    assert reason == "tool_calls"


@pytest.mark.parametrize("text", ["It is 60 degrees.", "  hello", '[{"a": 1}]', "", " \n"])
def test_plain_words_stay_words(text):
    answer = whole(text)
    assert (answer["message"]["content"], answer["finish_reason"]) == (text, "stop")
    assert "tool_calls" not in answer["message"]
    for parts in ([text], [*text, ""]):
        deltas, reason = streamed([{"role": "assistant", "content": ""}, *parts])
        assert "".join(delta.get("content") or "" for delta in deltas) == text
        assert (put_together(deltas), reason) == ([], "stop")


@pytest.mark.parametrize(
    "parts", [[GET_WEATHER], list(GET_WEATHER), ["\n", *re.findall(".{1,7}", GET_WEATHER)]]
)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_streamed_call_tells_id_and_name_once_and_arguments_in_pieces(parts, choice):
    deltas, reason = streamed([{"role": "assistant", "content": ""}, *parts], tool_choice=choice)
    assert put_together(deltas) == [("get_weather", '{"city": "Paris"}')]
    assert not any(delta.get("content") for delta in deltas)
    assert reason == "tool_calls"


def test_the_older_form_is_answered_in_the_older_shape():
    answer = whole(GET_WEATHER, functions=[WEATHER], function_call={"name": "get_weather"})
    assert answer["message"]["function_call"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert "tool_calls" not in answer["message"]
    assert answer["finish_reason"] == "function_call"
    deltas, reason = streamed(list(GET_WEATHER), functions=[WEATHER])
    parts = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert [part["name"] for part in parts if "name" in part] == ["get_weather"]
    assert "".join(part.get("arguments", "") for part in parts) == '{"city": "Paris"}'
    assert reason == "function_call"


def test_each_choice_has_calls_of_its_own():
    made = shaper(tool_choice="required")
    deltas = {0: [], 1: []}
    for at in range(0, len(GET_WEATHER), 5):
        for index, text in enumerate((GET_WEATHER, GET_TIME)):
            choice = {"index": index, "delta": {"content": text[at : at + 5]}, "finish_reason": None}
            for chunk in made.chunk({"choices": [choice]}):
                deltas[index].append(chunk["choices"][0]["delta"])
    assert put_together(deltas[0]) == [("get_weather", '{"city": "Paris"}')]
    assert put_together(deltas[1]) == [("get_time", "{}")]


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_calls_that_the_engine_found_are_told_alike(finish):
    found = {"content": None, "tool_calls": [call("get_weather", '{"city": "Paris"}'), call("get_time", "")]}
    answer = whole(found, NATIVE, finish)
    assert [each["function"]["arguments"] for each in answer["message"]["tool_calls"]] == [
        '{"city": "Paris"}',
        "{}",
    ]
    assert answer["finish_reason"] == "tool_calls"
    parts = [
        {"role": "assistant", "content": ""},
        {"content": "Let me see. "},
        {"tool_calls": [{"index": 0, **call("get_weather", None)}]},
        {
            "tool_calls": [
                {"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": '{"city": '}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]},
        {"tool_calls": [{"index": 1, **call("get_time", "")}]},
        {"content": ""},
    ]
    deltas, reason = streamed(parts, NATIVE, finish)
    assert put_together(deltas) == [("get_weather", '{"city": "Paris"}'), ("get_time", "{}")]
    assert deltas[1]["content"] == "Let me see. "
    assert reason == "tool_calls"


def test_only_the_first_call_is_told_when_several_are_not_wanted():
    found = {"tool_calls": [call("get_time", "{}"), call("get_time", "{}")]}
    assert len(whole(found, NATIVE, parallel_tool_calls=False)["message"]["tool_calls"]) == 1


def test_a_mistral_model_is_given_ids_that_its_template_takes():
    [made] = whole(GET_TIME, CallForm("mistral"), tool_choice="required")["message"]["tool_calls"]
    assert re.fullmatch("[a-zA-Z0-9]{9}", made["id"])


STRICT = [{"type": "function", "function": {**WEATHER, "strict": True}}]
CUT = {"finish": "length", "tool_choice": "required"}
FOUND_TEXT = {"tool_calls": [call("get_weather", '{"city"')]}
FOUND_BARE = {"tool_calls": [call("get_weather", "")]}
BROKEN = [
    (GET_WEATHER[:-4], CUT, 400, "max_tokens", "needs more tokens"),
    ("", CUT, 400, "max_tokens", "needs more tokens"),
    (GET_WEATHER[:-4], {"stop_reason": "Par", "stop": "Par", "tool_choice": "any"}, 400, "stop", "'stop'"),
    (GET_WEATHER[:-4], {"tool_choice": "required"}, 502, None, "did not keep to the form"),
    (GET_WEATHER[:-4], {}, 502, None, "did not keep to the form"),
    ("hello", {"tool_choice": "required"}, 502, None, "did not keep to the form"),
    ('{"name": "f", "arguments": {}}', {"tool_choice": "required"}, 502, None, "called 'f', which is none"),
    (GET_TIME, {"tool_choice": {"type": "function", "name": "get_weather"}}, 502, None, "which is none"),
    (
        '{"name": "get_weather", "arguments": {}}',
        {"tool_choice": "required"},
        502,
        None,
        "do not fit its schema",
    ),
    ('{"name": "get_weather", "arguments": {1}}', {"tool_choice": "required"}, 502, None, "that are no JSON"),
    (FOUND_TEXT, {"form": NATIVE, "stop_reason": "Par", "stop": "Par"}, 400, "stop", "'stop'"),
    (FOUND_BARE, {"form": NATIVE, "stop_reason": ":", "stop": ":"}, 400, "stop", "'stop'"),
    (FOUND_TEXT, {"form": NATIVE, "finish": "tool_calls"}, 502, None, "that are no JSON"),
    ({"tool_calls": [call("get_weather", "Infinity")]}, {"form": NATIVE}, 502, None, "that are no JSON"),
    ({"tool_calls": [call("get_weather", "[]")]}, {"form": NATIVE}, 502, None, "that are no object"),
    ({"tool_calls": [call("f", "{}")]}, {"form": NATIVE}, 502, None, "called 'f', which is none"),
    ({"tool_calls": [call("get_weather", "{}")]}, {"form": NATIVE, "tools": STRICT}, 502, None, "do not fit"),
]


@pytest.mark.parametrize(("message", "how", "status", "param", "text"), BROKEN)
def test_a_call_that_is_not_right_is_an_error_and_never_told_as_one(message, how, status, param, text):
    with pytest.raises(WrongCall) as refused:
        whole(message, **how)
    assert (refused.value.status, refused.value.param) == (status, param)
    assert text in refused.value.message
    if "stop_reason" not in how:
        with pytest.raises(WrongCall):
            streamed([message, ""], **how)


@pytest.mark.parametrize(("message", "form"), [(GET_WEATHER[:-4], PLAIN), (FOUND_TEXT, NATIVE)])
def test_a_free_choice_that_is_cut_off_says_so(message, form):
    assert whole(message, form, "length")["finish_reason"] == "length"


def test_a_call_that_is_whole_at_the_last_token_is_right():
    assert whole(GET_WEATHER, finish="length", tool_choice="required")["finish_reason"] == "tool_calls"


def test_loose_arguments_that_a_model_found_by_itself_are_the_callers_to_judge():
    answer = whole({"tool_calls": [call("get_weather", '{"town": 1}')]}, NATIVE)
    assert json.loads(answer["message"]["tool_calls"][0]["function"]["arguments"]) == {"town": 1}
