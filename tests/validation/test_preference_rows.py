"""Pairs of answers as users write them, and as nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.validation.test_datasets import ANSWER, ASSISTANT, CALL, CALLING, SYSTEM, TOOL, USER, chat, problem
from workers.validation.datasets import merge_reports, validate_dataset

BETTER = {"role": "assistant", "content": "Hello, Ann!"}
WORSE = {"role": "assistant", "content": "What?"}


def pair(asked: Any = None, better: Any = BETTER, worse: Any = WORSE, **others: Any) -> bytes:
    row = {
        "input": {"messages": [USER]} if asked is None else asked,
        "preferred_output": [better],
        "non_preferred_output": [worse],
    }
    return json.dumps({**row, **others}).encode()


def without(key: str) -> bytes:
    return json.dumps({name: value for name, value in json.loads(pair()).items() if name != key}).encode()


def asked(*messages: Any, **others: Any) -> dict[str, Any]:
    return {"messages": list(messages), **others}


GOOD = {
    "one question": pair(),
    "system first": pair(asked(SYSTEM, USER)),
    "later in a talk": pair(asked(USER, ASSISTANT, USER)),
    "after a tool's answer": pair(asked(USER, CALLING, ANSWER, tools=[TOOL])),
    "call or answer": pair(asked(USER, tools=[TOOL]), better=CALLING),
    "the owner's own keys": pair(id=7, rater="ann"),
    "nulls of an export": pair({"messages": [USER], "tools": None}, {**BETTER, "tool_calls": None}),
    "reasoning": pair(better={**BETTER, "reasoning_content": "she is Ann"}),
    "carriage return": pair() + b"\r",
}


@pytest.mark.parametrize("line", GOOD.values(), ids=GOOD.keys())
def test_a_good_pair_passes(line: bytes) -> None:
    report = validate_dataset([line])
    assert (report.ok, report.format, report.example_count) == (True, "PREFERENCE", 1), report.first_problem()


BAD = [
    (without("input"), "input is missing"),
    (pair("Hi"), 'input must be an object with messages, found "Hi"'),
    (pair([USER]), "input must be an object with messages, found an array"),
    (pair({}), "input.messages is missing"),
    (pair(asked()), "input.messages is empty"),
    (pair({"messages": USER}), "input.messages must be an array, found an object"),
    (pair(asked(USER, colour="red")), 'input has an unknown key "colour"; it has messages and tools'),
    (pair(asked("Hi")), 'input.messages[0] must be an object, found "Hi"'),
    (pair(asked({"role": "user"})), "input.messages[0].content is missing"),
    (pair(asked({"role": "bot", "content": "x"})), 'input.messages[0].role is "bot"; expected user'),
    (pair(asked(USER, USER)), 'input.messages[1].role is "user"; expected assistant here'),
    (pair(asked(SYSTEM)), 'input.messages[0].role is "system"; the input must end where an answer is due'),
    (
        pair(asked(USER, ASSISTANT)),
        'input.messages[1].role is "assistant"; the input must end where an answer is due',
    ),
    (pair(asked({**USER, "weight": 0})), "input.messages[0].weight has no effect"),
    (pair(asked(USER, tools=TOOL)), "input.tools must be an array, found an object"),
    (pair(asked(USER, tools=[{}])), "input.tools[0].function must be an object, found null"),
    (without("preferred_output"), "preferred_output is missing"),
    (without("non_preferred_output"), "non_preferred_output is missing"),
    (pair(preferred_output=BETTER), "preferred_output must be an array, found an object"),
    (pair(non_preferred_output="What?"), 'non_preferred_output must be an array, found "What?"'),
    (pair(preferred_output=[]), "preferred_output holds 0 messages; it must hold one, of the assistant"),
    (pair(non_preferred_output=[WORSE, USER]), "non_preferred_output holds 2 messages; it must hold one"),
    (pair(better="Hello"), 'preferred_output[0] must be an object, found "Hello"'),
    (pair(better={"content": "x"}), "preferred_output[0].role is missing"),
    (pair(worse=USER), 'non_preferred_output[0].role is "user"; expected assistant'),
    (pair(better={"role": "assistant"}), "preferred_output[0].content is missing"),
    (pair(better={**BETTER, "content": 3}), "preferred_output[0].content must be a string, found 3"),
    (pair(worse={**WORSE, "colour": "red"}), 'non_preferred_output[0] has an unknown key "colour"'),
    (pair(worse={**WORSE, "weight": 1}), "non_preferred_output[0].weight has no effect"),
    (
        pair(better={**CALLING, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}),
        'preferred_output[0].tool_calls[0].function.arguments is not JSON: "{"',
    ),
    (
        pair(worse=BETTER),
        "preferred_output and non_preferred_output are the same: there is nothing",
    ),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_pair_is_named_with_its_place(line: bytes, reason: str) -> None:
    assert problem(pair() + b"\n" + line).startswith(f"line 2: {reason}")


def test_pairs_are_counted_with_what_was_asked_twice() -> None:
    report = validate_dataset([pair(asked(USER, ASSISTANT, USER)) + b"\n" + pair()])
    chats = validate_dataset([chat(USER, ASSISTANT, USER, BETTER), b"\n", chat(USER, ASSISTANT, USER, WORSE)])
    single = validate_dataset([chat(USER, BETTER), b"\n", chat(USER, WORSE)])
    assert report.estimated_token_count == chats.estimated_token_count + single.estimated_token_count
    assert (report.example_count, report.average_turn_count, report.fields) == (2, 1.5, [])


def test_a_dataset_is_of_one_kind() -> None:
    for line, reason in (
        (chat(USER, ASSISTANT), "the row has messages, but the dataset holds pairs of answers since line 1"),
        (b'{"a": "x"}', "the row has no preferred_output, but the dataset holds pairs of answers since"),
    ):
        assert problem(pair() + b"\n" + line).startswith(f"line 2: {reason}")
    assert "holds rows with messages since line 1" in problem(chat(USER, ASSISTANT) + b"\n" + pair())
    assert "the row has two answers to choose from" in problem(pair(), "CHAT")
    assert "the row has messages, but the dataset holds pairs" in problem(chat(USER, ASSISTANT), "PREFERENCE")


def test_files_of_pairs_make_one_dataset() -> None:
    first = validate_dataset([pair()])
    merged = merge_reports({"a.jsonl": first, "b.jsonl": validate_dataset([pair()], first.format)})
    assert (merged.ok, merged.format, merged.example_count) == (True, "PREFERENCE", 2)
    wrong = merge_reports({"a.jsonl": first, "b.jsonl": validate_dataset([without("input")], first.format)})
    assert wrong.first_problem() == "b.jsonl line 1: input is missing"
