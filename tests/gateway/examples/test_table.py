"""Whether the table of examples is whole: against the documents, where they lie beside the checkout, and by
itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.gateway.examples.table import CHECKS, Example, examples, is_right

DOCUMENTS = Path(__file__).resolve().parents[4] / "shared" / "documents"
NAMES = {
    "000": "firefunction",
    "001": "fireworks",
    "002": "deepinfra",
    "003": "guide",
    "004": "inference.net",
}
ASKING = re.compile(
    r"^(?!\*).*\.(a?create|generate)\("  # a call of a package, and not in running text
    r"|(^curl|--url) \S*/v1/(chat/)?completions"
    r"|requests\.post\("
)


def examples_of_the_documents() -> set[str]:
    found = set()
    for path in DOCUMENTS.glob("*.txt"):
        lines = enumerate(path.read_text().splitlines(), 1)
        found |= {f"{NAMES[path.name[:3]]} {number}" for number, line in lines if ASKING.search(line)}
    return found


if DOCUMENTS.is_dir():  # beside the checkout; the tests do without them

    def test_every_example_of_the_documents_is_in_the_table():
        in_table = {line for example in examples() for line in example.lines}
        found = examples_of_the_documents()
        assert len(found) > 50
        assert sorted(found - in_table) == []


def test_every_example_is_checked():
    for example in examples():
        assert example.expected and set(example.expected) <= {*CHECKS, "refused"}, example
        assert Path(__file__).with_name(f"{example.client}.py").exists(), example


CALL = [["get_weather", '{"city": "Oslo"}']]
WRONG = [
    ({"says": "amber river"}, {"text": "amber rive", "finish": "stop"}),
    ({"says": "amber river"}, {"text": "amber river", "finish": "length"}),
    ({"calls": [["get_weather", {"city": "Lima"}]]}, {"calls": CALL, "text": "", "finish": "tool_calls"}),
    ({"calls": [["get_weather", {"city": "Oslo"}]]}, {"calls": CALL, "text": "", "finish": "stop"}),
    ({"calls": [["get_weather", {"city": "Oslo"}]]}, {"calls": [], "text": "7", "finish": "stop"}),
    ({"fits": {"required": ["city"]}}, {"text": "{}", "finish": "stop"}),
    ({"matches": "sunny|snow"}, {"text": "snowy"}),
    ({"cached": 256}, {"usage": {"prompt_tokens_details": {"cached_tokens": 0}}}),
    ({"cached": 0}, {"usage": {"prompt_tokens_details": {"cached_tokens": 256}}}),
    ({"sees": "40"}, {"usage": {"prompt_tokens": 12}}),
    ({"usage": True}, {"usage": {"completion_tokens": 0}}),
    ({"refused": "'images'"}, {"text": "A picture.", "finish": "stop"}),
    ({"says": "amber river"}, {"refused": "no"}),
    ({"dimensions": 64}, [[0.5] * 128]),
]


@pytest.mark.parametrize(("expected", "answer"), WRONG)
def test_a_wrong_answer_is_seen(expected, answer):
    assert not is_right(Example("", "", (), "chat", {}, expected), answer)


def test_a_stream_that_comes_in_one_piece_is_no_stream():
    example = Example("", "", (), "chat", {"stream": True}, {"says": "amber river"})
    answer = {"text": "amber river", "finish": "stop", "pieces": 1}
    assert not is_right(example, answer)
    assert is_right(example, {**answer, "pieces": 2})
