"""Datasets as users write them, and as nobody should."""

from __future__ import annotations

import hashlib
import itertools
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.validation.datasets import DatasetLimits, merge_reports, validate_dataset

Message = dict[str, Any]
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"city": "Oslo"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWER = {"role": "tool", "tool_call_id": "c1", "content": "12"}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def chat(*messages: Any, **others: Any) -> bytes:
    return json.dumps({"messages": list(messages), **others}).encode()


def problem(line: bytes, format: Any = None) -> str:
    return validate_dataset([line], format).first_problem()


GOOD_CHATS = {
    "question and answer": chat(USER, ASSISTANT),
    "system first": chat(SYSTEM, USER, ASSISTANT),
    "two turns": chat(USER, ASSISTANT, USER, ASSISTANT),
    "weights": chat(USER, {**ASSISTANT, "weight": 0}, USER, {**ASSISTANT, "weight": 1}),
    "names": chat({**USER, "name": "Ann"}, ASSISTANT),
    "empty content": chat({**USER, "content": ""}, ASSISTANT),
    "tools": chat(USER, CALLING, ANSWER, ASSISTANT, tools=[TOOL]),
    "two answers": chat(
        USER, {**CALLING, "tool_calls": [CALL, {**CALL, "id": "c2"}]}, ANSWER, ANSWER, ASSISTANT
    ),
    "arguments as an object": chat(
        USER, {**CALLING, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}, ANSWER, ASSISTANT
    ),
    "ends": chat(USER, ASSISTANT, id="row 1", source={"page": 3}),
    "a call at the end": chat(USER, CALLING, tools=[TOOL]),
    "reasoning": chat(USER, {**ASSISTANT, "reasoning_content": "hm"}),
    "nulls of an export": chat({**USER, "tool_calls": None, "name": None}, ASSISTANT, tools=None),
    "emoji by escapes": rb'{"messages":[{"role":"user","content":"\ud83d\ude00 \\ud83d"},'
    rb'{"role":"assistant","content":""}]}',
    "carriage return": chat(USER, ASSISTANT) + b"\r",
}


@pytest.mark.parametrize("line", GOOD_CHATS.values(), ids=GOOD_CHATS.keys())
def test_a_good_chat_passes(line: bytes) -> None:
    report = validate_dataset([line])
    assert (report.ok, report.format, report.example_count) == (True, "CHAT", 1), report.first_problem()


BAD_CHATS = [
    (b'{"messages": 3}', "messages must be an array, found 3"),
    (b'{"messages": []}', "messages is empty"),
    (chat("hi"), 'messages[0] must be an object, found "hi"'),
    (chat(USER, None), "messages[1] must be an object, found null"),
    (chat({"content": "x"}), "messages[0].role is missing"),
    (
        chat(USER, ASSISTANT, {"role": "bot", "content": "x"}),
        'messages[2].role is "bot"; expected user, assistant, system or tool',
    ),
    (chat({"role": ["user"], "content": "x"}), "messages[0].role is an array; expected user, assistant"),
    (chat({"role": None, "content": "x"}), "messages[0].role is null; expected user, assistant"),
    (chat(ASSISTANT), 'messages[0].role is "assistant"; expected user here'),
    (chat(SYSTEM, ASSISTANT), 'messages[1].role is "assistant"; expected user here'),
    (chat(USER, USER), 'messages[1].role is "user"; expected assistant here'),
    (chat(USER, ASSISTANT, ASSISTANT), 'messages[2].role is "assistant"; expected user here'),
    (chat(USER, SYSTEM), 'messages[1].role is "system"; only the first message may be a system message'),
    (chat(SYSTEM, SYSTEM), "messages[1].role is"),
    (chat(USER), 'messages[0].role is "user"; the last message must be from the assistant'),
    (chat(SYSTEM), 'messages[0].role is "system"; the last message must be from the assistant'),
    (chat(USER, {"role": "assistant"}), "messages[1].content is missing"),
    (chat({**USER, "content": None}, ASSISTANT), "messages[0].content must be a string, found null"),
    (chat({**USER, "content": 1}, ASSISTANT), "messages[0].content must be a string, found 1"),
    (chat({**USER, "content": ["x"]}, ASSISTANT), "messages[0].content must be a string, found an array"),
    (chat(USER, {**ASSISTANT, "weight": 2}), "messages[1].weight is 2; expected 0 or 1"),
    (chat(USER, {**ASSISTANT, "weight": 0.5}), "messages[1].weight is 0.5; expected 0 or 1"),
    (chat(USER, {**ASSISTANT, "weight": True}), "messages[1].weight is true; expected 0 or 1"),
    (chat(USER, {**ASSISTANT, "weight": "1"}), 'messages[1].weight is "1"; expected 0 or 1'),
    (
        chat(USER, {**ASSISTANT, "weight": 0}),
        "nothing to train on: the weight of every assistant message is 0",
    ),
    (chat({**USER, "contents": "x"}, ASSISTANT), 'messages[0] has an unknown key "contents"'),
    (chat({**USER, "tool_calls": [CALL]}, ASSISTANT), 'messages[0] has an unknown key "tool_calls"'),
    (chat({**USER, "name": 3}, ASSISTANT), "messages[0].name must be a string, found 3"),
    (chat(USER, ANSWER), 'messages[1].role is "tool"; a tool message must follow an assistant message with'),
    (chat(USER, ASSISTANT, ANSWER), 'messages[2].role is "tool"; a tool message must follow'),
    (chat(USER, CALLING, USER), 'messages[2].role is "user"; expected tool here'),
    (chat(USER, CALLING, ANSWER), 'messages[2].role is "tool"; the last message must be from the assistant'),
    (
        chat(USER, CALLING, {**ANSWER, "tool_call_id": "c9"}, ASSISTANT),
        'messages[2].tool_call_id "c9" answers none of the calls before it',
    ),
    (
        chat(USER, CALLING, {**ANSWER, "tool_call_id": ["c1"]}, ASSISTANT),
        "messages[2].tool_call_id must be a string",
    ),
    (chat(USER, {**CALLING, "tool_calls": "x"}, ANSWER), "messages[1].tool_calls must be an array"),
    (
        chat(USER, {**ASSISTANT, "tool_calls": []}),
        "messages[1].tool_calls must be an array with at least one call",
    ),
    (
        chat(USER, {**CALLING, "tool_calls": [{}]}, ANSWER),
        "messages[1].tool_calls[0].function must be an object",
    ),
    (
        chat(USER, {**CALLING, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, ANSWER),
        'messages[1].tool_calls[0].function.arguments is not JSON: "{"',
    ),
    (
        chat(USER, {**CALLING, "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}, ANSWER),
        "messages[1].tool_calls[0].function.arguments must be a JSON object, found an array",
    ),
    (chat(USER, ASSISTANT, tools={}), "tools must be an array, found an object"),
    (chat(USER, ASSISTANT, tools=[{"type": "code"}]), 'tools[0].type is "code"; expected "function"'),
    (chat(USER, ASSISTANT, tools=[{"function": {"name": ""}}]), "tools[0].function.name must be a string"),
    (
        chat(USER, ASSISTANT, tools=[{"function": {"name": "f", "parameters": []}}]),
        "tools[0].function.parameters must be an object",
    ),
]


@pytest.mark.parametrize(("line", "reason"), BAD_CHATS, ids=[reason for _, reason in BAD_CHATS])
def test_a_bad_chat_is_told_why(line: bytes, reason: str) -> None:
    assert problem(line).startswith(f"line 1: {reason}")


BAD_TEXTS = [
    (b"{}", "the object has no fields"),
    (b'{"a": 1, "b": null}', "no field holds text"),
    (b'{"a": ""}', "no field holds text"),
    (b'{"a": "x", "b": [1]}', "b is an array; a field must be a string, number, boolean or null"),
    (b'{"a": "x", "b": {"c": 1}}', "b is an object; a field must be"),
    (b'{"a{b}": "x"}', 'the field name "a{b}" cannot be used in a template'),
    (b'{"": "x"}', 'the field name "" cannot be used in a template'),
    (b'{"a\\u0000": "x"}', "the field name"),
    (json.dumps({"k" * 200: "x"}).encode(), "the field name"),
    (json.dumps({f"k{i}": "x" for i in range(300)}).encode(), "the object has 300 fields; at most 256"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_TEXTS, ids=[reason for _, reason in BAD_TEXTS])
def test_a_bad_text_row_is_told_why(line: bytes, reason: str) -> None:
    assert problem(line).startswith(f"line 1: {reason}")


HOSTILE_LINES = [
    (b"[1]", "expected a JSON object, found an array"),
    (b'"x"', 'expected a JSON object, found "x"'),
    (b"null", "expected a JSON object, found null"),
    (b'{"a": "x"', "not JSON: the text ends too early"),
    (b'{"a": "x"} {"b": "y"}', "not JSON: there are two objects in the line, at byte 10"),
    (b'{"a": "x"} b', "not JSON: trailing characters at byte 12"),
    (b'{"a": "x",}', "not JSON: trailing comma"),
    (b"{'a': 'x'}", "not JSON: it is Python's notation"),
    (b"{a: 1}", "not JSON: object keys must be strings"),
    (b'{"a": NaN}', "not JSON: NaN is no JSON number"),
    (b'{"a": -Infinity}', "not JSON: Infinity is no JSON number"),
    (b'{"a": 1e999, "b": "x"}', "a number is too large to be read"),
    (b'{"a": ' + b"9" * 100_000 + b"}", "a number is too large to be read"),
    (b'{"a": "x\x01"}', "not JSON: invalid character"),
    (b'{"a": "\xff"}', "not UTF-8: byte 0xff at byte 8"),
    (b'{"a": "\xed\xa0\x80"}', "not UTF-8: byte 0xed at byte 8"),
    ('{"a": "é"}'.encode("latin-1"), "not UTF-8: byte 0xe9 at byte 8"),
    ('{"a": "x"}'.encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
    (rb'{"a": "\ud800"}', r"half a surrogate pair (\ud800) at byte 8"),
    (rb'{"a": "\udc00x"}', r"half a surrogate pair (\udc00) at byte 8"),
    (b'{"a": "x", "a": "y"}', 'the key "a" appears twice in one object'),
    (rb'{"a": "x", "\u0061": "y"}', 'the key "a" appears twice in one object'),
    (b'{"messages": [], "messages": [{"role": "user", "role": "x"}]}', "the key"),
    (rb'{"a": "\\\"", "b": "x", "b": "\""}', 'the key "b" appears twice in one object'),
    (b"[" * 100_000, "nested deeper than 64 levels"),
    (b'{"a":' * 70 + b"1" + b"}" * 70, "nested deeper than 64 levels"),
    (chat(USER, ASSISTANT)[:-1] + b', "x": ' + b"[" * 70 + b"]" * 70 + b"}", "nested deeper than 64 levels"),
    (b'{"a": 1, "a": ' + b"[" * 900 + b"]" * 900 + b"}", "nested deeper than 64 levels"),
    (b"\x00", "not JSON"),
]


@pytest.mark.parametrize(("line", "reason"), HOSTILE_LINES, ids=[reason for _, reason in HOSTILE_LINES])
def test_a_hostile_line_is_told_why(line: bytes, reason: str) -> None:
    assert problem(line).startswith(f"line 1: {reason}")


def test_reasons_are_printable_ascii() -> None:
    for line in (chat({"role": "\x00\ud7ff\u202e" * 100, "content": ""}), b'{"\\u202e{": "x"}'):
        reason = problem(line)
        assert reason.isprintable()
        assert len(reason) < 300


def test_every_bad_row_is_counted_and_the_first_hundred_are_told() -> None:
    report = validate_dataset([b'{"a": "x"}\n' + b"oops\n" * 250 + b'{"a": "y"}\n'])
    assert (report.example_count, report.bad_row_count, len(report.bad_rows)) == (252, 250, 100)
    assert report.bad_rows[0].line == 2
    assert report.bad_rows[-1].line == 101
    assert report.first_problem().endswith("(250 bad rows in all)")
    assert report.to_dict()["bad_rows"][0]["line"] == 2


def test_an_empty_line_is_a_bad_row_unless_it_is_at_the_end() -> None:
    row = b'{"a": "x"}\n'
    assert validate_dataset([row + row + b"\n\n"]).ok
    report = validate_dataset([row + b"\n  \n" + row])
    assert [(bad.line, bad.reason) for bad in report.bad_rows] == [
        (2, "the line is empty"),
        (3, "the line is empty"),
    ]
    assert report.example_count == 2


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b"  "])
def test_a_dataset_without_rows_is_refused(content: bytes) -> None:
    report = validate_dataset([content])
    assert not report.ok
    assert report.first_problem() == "the dataset is empty: it must hold at least one row"


def test_too_many_rows_are_refused() -> None:
    report = validate_dataset([b'{"a": "x"}\n' * 6], limits=DatasetLimits(examples=5))
    assert report.first_problem() == "the dataset holds 6 rows; at most 5 are allowed"


def test_a_row_over_the_limit_is_bad_and_the_next_is_read() -> None:
    long_row = b'{"a": "' + b"x" * 2000 + b'"}\n'
    chunks = [
        b'{"a": "x"}\n',
        long_row[:500],
        long_row[500:1500],
        long_row[1500:] + b'{"a": "y"}\n' + long_row,
    ]
    report = validate_dataset(chunks, limits=DatasetLimits(row_bytes=1000))
    assert [(bad.line, bad.reason) for bad in report.bad_rows] == [
        (2, "the line is longer than 1000 bytes"),
        (4, "the line is longer than 1000 bytes"),
    ]
    assert report.example_count == 4


def test_kinds_do_not_mix() -> None:
    report = validate_dataset([chat(USER, ASSISTANT) + b'\n{"a": "x"}\n'])
    assert report.format == "CHAT"
    assert report.first_problem() == (
        "line 2: the row has no messages, but the dataset holds rows with messages since line 1; "
        "one dataset is of one kind"
    )
    report = validate_dataset([b'oops\n{"a": "x"}\n' + chat(USER, ASSISTANT)])
    assert report.format == "COMPLETION"
    assert "but the dataset holds rows of text fields since line 2" in report.bad_rows[1].reason


def test_the_wanted_format_decides() -> None:
    assert "the row has no messages" in problem(b'{"a": "x"}', "CHAT")
    assert "the row has messages" in problem(chat(USER, ASSISTANT), "COMPLETION")


def test_a_byte_order_mark_is_tolerated_however_it_is_cut() -> None:
    for size in (1, 2, 3, 100):
        content = b'\xef\xbb\xbf{"a": "x"}\n'
        assert validate_dataset(content[i : i + size] for i in range(0, len(content), size)).ok


def test_counts_and_checksum_are_of_the_whole_file() -> None:
    content = b"\n".join([chat(SYSTEM, USER, ASSISTANT), chat(USER, ASSISTANT, USER, ASSISTANT)]) + b"\n"
    report = validate_dataset([content])
    assert report.bytes == len(content)
    assert report.sha256 == hashlib.sha256(content).hexdigest()
    assert report.average_turn_count == 1.5
    # 7 messages of 4; "Be brief." 3, "Hi" 1 each, "Hello" 2 each.
    assert report.estimated_token_count == 7 * 4 + 3 + 3 * 1 + 3 * 2


def test_other_scripts_are_estimated_by_their_bytes() -> None:
    assert validate_dataset(['{"a": "日本語です"}'.encode()]).estimated_token_count == 5
    assert validate_dataset([b'{"a": "twelve bytes", "n": 5}']).estimated_token_count == 4


def test_fields_of_all_rows_are_known() -> None:
    report = validate_dataset([b'{"q": "x", "a": "y"}\n{"q": "x", "b": 1}\n{"q": "z"}'])
    assert report.fields == ["q"]


def test_shards_make_one_report() -> None:
    first = validate_dataset([chat(USER, ASSISTANT)])
    second = validate_dataset([b"oops\n" + chat(USER, ASSISTANT, USER, ASSISTANT)], first.format)
    whole = merge_reports({"a.jsonl": first, "b.jsonl": second})
    assert (whole.format, whole.example_count, whole.bad_row_count) == ("CHAT", 3, 1)
    assert whole.average_turn_count == 1.0
    assert whole.first_problem().startswith("b.jsonl line 1: not JSON")
    assert merge_reports({}).first_problem() == "the dataset is empty: it must hold at least one row"
    few = DatasetLimits(examples=2)
    assert "at most 2" in merge_reports({"a": first, "b": first, "c": first}, few).first_problem()


def test_memory_does_not_grow_with_the_file() -> None:
    def endless() -> Iterator[bytes]:
        block = (chat(USER, {**ASSISTANT, "content": "word " * 200}) + b"\n") * 200
        yield from itertools.repeat(block, 100)
        yield from itertools.repeat(b"x" * 65536, 600)  # one line of 39 MB

    tracemalloc.start()
    report = validate_dataset(endless(), limits=DatasetLimits(row_bytes=2**20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.bytes > 55_000_000
    assert (report.example_count, report.bad_row_count) == (20_001, 1)
    assert peak < 8_000_000


@given(st.binary(max_size=400), st.integers(1, 50))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_the_check_fail(content: bytes, size: int) -> None:
    chunks = [content[i : i + size] for i in range(0, len(content), size)]
    report = validate_dataset(chunks, limits=DatasetLimits(row_bytes=100))
    assert report.bytes == len(content)
    assert validate_dataset([content], limits=DatasetLimits(row_bytes=100)) == report


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "weight", "tool_calls", "function", "x"]), inner
        )
    ),
    max_leaves=12,
)
_roles = st.sampled_from(["system", "user", "assistant", "tool"])
_messages = st.lists(st.dictionaries(st.just("role"), _roles, min_size=1) | _json, max_size=5)


@given(st.dictionaries(st.sampled_from(["messages", "tools", "a"]), _messages | _json))
@settings(max_examples=300, deadline=None)
def test_no_row_makes_the_check_fail(row: dict[str, Any]) -> None:
    report = validate_dataset([json.dumps(row).encode()])
    assert report.example_count == 1


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=5), st.booleans())
@settings(max_examples=300, deadline=None)
def test_duplicates_are_found_whatever_the_text(row: dict[str, str], ascii_only: bool) -> None:
    text = json.dumps(row, ensure_ascii=ascii_only)
    duplicated = text[:-1] + (", " if row else "") + '"k": "\\\\\\"", "k": ""}'
    assert "appears twice" not in problem(text.encode())
    assert "appears twice" in problem(duplicated.encode())
