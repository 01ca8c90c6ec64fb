"""Dataset files made to be wrong, each in one way, and what their owner is told of it.

`told`: of the first complaint its line (0: the whole file) and how it begins, when the file is uploaded; None
for a file that is a dataset all the same. `found`: of a file that is taken, what is found before training.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

USER = {"role": "user", "content": "the colour of sky?"}
ANSWER = {"role": "assistant", "content": "blue"}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"city": "Oslo"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def chat(*messages: Any, **others: Any) -> bytes:
    return json.dumps({"messages": list(messages), **others}).encode() + b"\n"


def text(prompt: Any = "a", completion: Any = " b") -> bytes:
    return json.dumps({"prompt": prompt, "completion": completion}).encode() + b"\n"


def nested(depth: int) -> bytes:
    return b'{"prompt": "a", "x": ' + b"[" * depth + b"]" * depth + b"}\n"


GOOD = chat(USER, ANSWER) + chat({**USER, "content": "of grass?"}, {**ANSWER, "content": "green"})
LONG = chat({**USER, "content": "red " * 300}, ANSWER)


@dataclass(frozen=True)
class WrongFile:
    name: str
    data: bytes
    told: tuple[int, str] | None
    found: frozenset[str] = frozenset()


def wrong(name: str, data: bytes, line: int, begins: str) -> WrongFile:
    return WrongFile(name, data, (line, begins))


def taken(name: str, data: bytes, *found: str) -> WrongFile:
    return WrongFile(name, data, None, frozenset(found))


FILES = [
    # The file is of another kind.
    wrong("empty", b"", 0, "the dataset is empty"),
    wrong("only blank lines", b"\n \n\n", 0, "the dataset is empty"),
    wrong("gzip", gzip.compress(GOOD), 1, "the file is compressed with gzip"),
    wrong("zip", b"PK\x03\x04rows\n", 1, "the file is a ZIP archive"),
    wrong("parquet", b"PAR1\x15\n", 1, "the file is Parquet"),
    wrong("utf-16", GOOD.decode().encode("utf-16"), 1, "the file is UTF-16; save it as UTF-8"),
    wrong("utf-16 unmarked", GOOD.decode().encode("utf-16-le"), 1, "the file is UTF-16"),
    wrong("latin-1", '{"prompt": "é"}\n'.encode("latin-1"), 1, "not UTF-8: byte 0xe9 at byte 13"),
    wrong("json array", b"[" + GOOD.strip().replace(b"\n", b",") + b"]", 1, "the file is one JSON array"),
    wrong("json array in lines", b'[\n{"a": "x"},\n{"a": "y"}\n]\n', 1, "the file is one JSON array"),
    wrong("pretty printed", b'{\n "prompt": "a"\n}\n', 1, "the object goes on in the next line"),
    wrong("csv", b"prompt,completion\na,b\n", 1, "the file is a table (CSV)"),
    wrong("tab separated", b"prompt\tcompletion\na\tb\n", 1, "the file is a table (CSV)"),
    wrong("html", b"<!DOCTYPE html>\n", 1, "the file is HTML or XML"),
    wrong("git lfs pointer", b"version https://git-lfs.github.com/spec/v1\n", 1, "the file is a pointer"),
    # A line is no JSON object.
    wrong("truncated last line", GOOD + GOOD[:30], 3, "not JSON: the text ends too early"),
    wrong("nul", b'{"prompt": "a"}\x00\n', 1, "not JSON: there is a NUL at byte 16"),
    wrong("commas", text().strip() + b",\n", 1, "not JSON: there is a comma behind the object"),
    wrong("two in a line", text().strip() + text(), 1, "not JSON: there are two objects in the line"),
    wrong("cr only", text().strip() + b"\r" + text().strip(), 1, "not JSON: the lines end with CR only"),
    wrong("python", b"{'prompt': 'a'}\n", 1, "not JSON: it is Python's notation"),
    wrong("python none", b'{"prompt": None}\n', 1, "not JSON: it is Python's notation"),
    wrong("joined files", GOOD + b"\xef\xbb\xbf" + GOOD, 3, "not JSON: there is a byte order mark"),
    wrong("nan", b'{"prompt": "a", "n": NaN}\n', 1, "not JSON: NaN is no JSON number"),
    wrong("a huge number", b'{"prompt": "a", "n": 1e999}\n', 1, "a number is too large"),
    wrong("half a surrogate", b'{"prompt": "\\ud800"}\n', 1, "half a surrogate pair"),
    wrong("duplicate keys", b'{"prompt": "a", "prompt": "b"}\n', 1, 'the key "prompt" appears twice'),
    wrong("deep nesting", nested(70), 1, "nested deeper than 64 levels"),
    wrong("a list in a line", b"[1, 2]\n", 1, "expected a JSON object, found an array"),
    wrong("a blank line inside", GOOD + b"\n" + GOOD, 3, "the line is empty"),
    # An object is no row.
    wrong("mixed kinds", GOOD + text(), 3, "the row has no messages"),
    wrong("messages as text", b'{"messages": "[]"}\n', 1, "messages must be an array"),
    wrong("no messages", chat(), 1, "messages is empty"),
    wrong("no assistant", chat(USER), 1, 'messages[0].role is "user"; the last message must be'),
    wrong("assistant first", chat(ANSWER, USER, ANSWER), 1, 'messages[0].role is "assistant"; expected user'),
    wrong("two questions", chat(USER, USER, ANSWER), 1, 'messages[1].role is "user"; expected assistant'),
    wrong("unknown role", chat({**USER, "role": "bot"}, ANSWER), 1, 'messages[0].role is "bot"; expected'),
    wrong("developer", chat({**USER, "role": "developer"}), 1, 'messages[0].role is "developer"'),
    wrong("share format", b'{"conversations": [{"from": "human"}]}\n', 1, "conversations is not read"),
    wrong("weight 2", chat(USER, {**ANSWER, "weight": 2}), 1, "messages[1].weight is 2; expected 0 or 1"),
    wrong("all weights 0", chat(USER, {**ANSWER, "weight": 0}), 1, "nothing to train on"),
    wrong("content null", chat(USER, {**ANSWER, "content": None}), 1, "messages[1].content must be a string"),
    wrong(
        "image parts",
        chat({**USER, "content": [{"type": "image_url"}]}, ANSWER),
        1,
        'messages[0].content is an array of parts ("image_url"); training reads text only',
    ),
    wrong(
        "arguments no json",
        chat(USER, {**CALLING, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
        1,
        "messages[1].tool_calls[0].function.arguments is not JSON",
    ),
    wrong(
        "unmatched call id",
        chat(USER, CALLING, {"role": "tool", "content": "1", "tool_call_id": "c9"}, ANSWER),
        1,
        'messages[2].tool_call_id "c9" answers none of the calls before it',
    ),
    wrong(
        "function_call",
        chat(USER, {"role": "assistant", "content": None, "function_call": {"name": "f"}}),
        1,
        "messages[1] has a function_call, which is out of use",
    ),
    wrong("fields that are no text", text({"a": 1}), 1, "prompt is an object; a field must be"),
    wrong("no text at all", text("", None), 1, "no field holds text"),
    wrong("field name", b'{"a{b}": "x"}\n', 1, 'the field name "a{b}" cannot be used'),
    # It is a dataset, and something about it is odd.
    taken("byte order mark", b"\xef\xbb\xbf" + GOOD),
    taken("crlf", GOOD.replace(b"\n", b"\r\n")),
    taken("no newline at the end", GOOD.strip()),
    taken("prompt without completion", b'{"prompt": "a"}\n{"prompt": "b"}\n', "FIELD_MISSING"),
    taken("an empty completion", text("a", "") + text("b", " c"), "EMPTY_ANSWER", "ROWS_DROPPED"),
    taken("nothing but white space", chat(USER, {**ANSWER, "content": " \n"}) + GOOD, "EMPTY_ANSWER"),
    taken("twice the same", GOOD + GOOD, "DUPLICATE_ROWS"),
    taken("one answer to all", chat(USER, ANSWER) + chat({**USER, "content": "b"}, ANSWER), "SAME_ANSWER"),
    taken("applied already", GOOD + chat({**USER, "content": "<|user|>a<|end|>"}, ANSWER), "SPECIALS_TYPED"),
    taken("a long row", GOOD + chat(USER, {**ANSWER, "content": "red " * 300}), "ROWS_CUT"),
    taken("a long prompt", GOOD + LONG, "ROWS_CUT", "ROWS_DROPPED"),
    taken("all prompts too long", LONG, "ROWS_CUT", "ROWS_DROPPED", "ALL_ROWS_TRUNCATED"),
    taken("a word parted", text("the colo", "ur of sky") + text("a", " b"), "PROMPT_CHANGES"),
]  # fmt: skip
