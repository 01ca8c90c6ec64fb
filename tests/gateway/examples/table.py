"""The table of examples: how its rows read, and whether an answer is what a row expects."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

USUAL = {"model": "taught", "max_tokens": 120, "temperature": 0}
LONG = "The weather in Oslo is 7 degrees and rainy. " * 30


@dataclass(frozen=True)
class Example:
    """One row for one client."""

    topic: str
    client: str
    lines: tuple[str, ...]
    """The lines of the documents whose examples it stands for, each `<document> <number>`."""
    call: str
    asked: Mapping[str, Any]
    expected: Mapping[str, Any] = field(default_factory=dict)

    @property
    def times(self) -> int:
        """How often it is asked; the last answer counts."""
        return 2 if "cached" in self.expected else 1

    def to_send(self) -> list[Any]:
        usual = {} if self.topic == "embeddings" else USUAL
        return [self.call, {**usual, **self.asked}]

    def filled(self, values: Mapping[str, str]) -> Example:
        """The same with every `<NAME>` filled in; `<LONG>` is a prompt that nobody has asked before."""
        values = {"LONG": f"{uuid.uuid4()} {LONG}", **values}
        asked, expected = (_filled(each, values) for each in (self.asked, self.expected))
        return replace(self, asked=asked, expected=expected)


def _filled(fields: Mapping[str, Any], values: Mapping[str, str]) -> Any:
    text = json.dumps(fields)
    for name, value in values.items():
        text = text.replace(f"<{name}>", value)
    return json.loads(text)


@cache
def examples() -> tuple[Example, ...]:
    found = []
    for topic, rows in yaml.safe_load(Path(__file__).with_name("examples.yaml").read_text()).items():
        for row in rows:
            clients, call, asked = row.pop("for"), row.pop("call"), row.pop("asked")
            found += [
                Example(topic, client, tuple(lines), call, asked, row) for client, lines in clients.items()
            ]
    return tuple(found)


def is_right(example: Example, answer: Any) -> bool:
    if "refused" in answer or "refused" in example.expected:
        return example.expected.get("refused", "\0") in answer.get("refused", "")
    in_pieces = not example.asked.get("stream") or answer["pieces"] > 1 or len(answer["text"]) == 1
    return in_pieces and all(CHECKS[name](answer, wanted) for name, wanted in example.expected.items())


def calls(answer: Any, wanted: Any) -> bool:
    """They are the answer, unless there is another after their results."""
    told = [[name, json.loads(arguments)] for name, arguments in answer["calls"]]
    return told == wanted and (bool(answer["text"]) or answer["finish"] in ("tool_calls", "function_call"))


def fits(answer: Any, schema: Any) -> bool:
    return answer["finish"] == "stop" and jsonschema_rs.is_valid(schema, json.loads(answer["text"]))


def matches(answer: Any, pattern: str) -> bool:
    return re.fullmatch(pattern, answer["text"]) is not None


def cached(answer: Any, least: int) -> bool:
    """Of an answer to a prompt that was asked before; 0 means none at all."""
    count = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return bool(count >= least and (least or not count))


CHECKS: Mapping[str, Any] = {
    "says": lambda answer, text: answer["text"] == text and answer["finish"] == "stop",
    "calls": calls,
    "fits": fits,
    "matches": matches,
    "cached": cached,
    "usage": lambda answer, _: answer["usage"]["completion_tokens"] > 0,
    "sees": lambda answer, tokens: answer["usage"]["prompt_tokens"] == int(tokens),
    "dimensions": lambda vectors, count: [len(vector) for vector in vectors] == [count],
}


def of_topics(*topics: str) -> list[Example]:
    return [example for example in examples() if example.topic in topics]


def clients_of(found: Iterable[Example]) -> list[str]:
    return sorted({example.client for example in found})
