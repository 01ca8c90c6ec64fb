"""Calls read out of text, however it is cut."""

import pytest

from gateway.tools.reader import CallReader

ONE = '{"name": "add", "arguments": {"a": "}]\\"{", "b": [1, {"c": null}]}}'
SEVERAL = '[{"name": "add", "parameters": {}}, {"name": "sub-2", "parameters": {"x": "\\\\"}}]'
READ = [
    (ONE, [("add", '{"a": "}]\\"{", "b": [1, {"c": null}]}')]),
    (SEVERAL, [("add", "{}"), ("sub-2", '{"x": "\\\\"}')]),
    ('\n {"name":"f","arguments":{}}', [("f", "{}")]),
]


def read(parts):
    reader, calls = CallReader(), []
    for part in parts:
        for piece in reader.feed(part):
            if piece.name is not None:
                calls.append([piece.name, ""])
                assert piece.index == len(calls) - 1
            calls[piece.index][1] += piece.arguments
    return [tuple(call) for call in calls], reader.is_whole


@pytest.mark.parametrize(("text", "calls"), READ)
def test_calls_are_found_however_the_text_is_cut(text, calls):
    assert read([text]) == (calls, True)
    assert read(text) == (calls, True)
    for cut in range(len(text)):
        assert read([text[:cut], text[cut:]]) == (calls, True)


@pytest.mark.parametrize("text", [ONE, SEVERAL])
def test_a_call_that_breaks_off_is_not_whole(text):
    assert [cut for cut in range(len(text)) if read([text[:cut]])[1]] == []


@pytest.mark.parametrize("text", ["", "hello", "{}", '{"name": 1}', "[]", ONE + "x"])
def test_other_text_is_no_call(text):
    assert not read([text])[1]


def test_arguments_are_told_as_they_come():
    reader = CallReader()
    pieces = [
        piece.arguments
        for part in ('{"name": "f", "arguments": {"a', '": 1', "}}")
        for piece in reader.feed(part)
    ]
    assert pieces == ["", '{"a', '": 1', "}"]
