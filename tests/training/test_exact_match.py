"""What is asked of held-out rows, and how answers are counted; no model is needed for that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.training.conftest import END
from workers.training.examples.encoding import IGNORED
from workers.training.outcome import exact_match
from workers.training.outcome.exact_match import (
    LONGEST_ANSWER,
    OTHER,
    Question,
    as_text,
    batches,
    confusion_table,
    known_labels,
    question_of,
    short_questions,
)


def example(prompt: list[int], answer: list[int]) -> dict[str, list[int]]:
    return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


def test_the_question_is_what_stands_before_the_last_trained_span() -> None:
    ids = [1, 2, 3, 4, 5, 6, 7]
    labels = [IGNORED, 2, IGNORED, IGNORED, 5, 6, IGNORED]

    assert question_of({"input_ids": ids, "labels": labels}) == Question([1, 2, 3, 4], [5, 6])


def test_a_row_that_is_trained_from_its_first_token_on_asks_nothing() -> None:
    assert list(short_questions([example([], [1, 2])])) == []


def test_only_short_answers_are_asked_and_the_shortest_questions_first() -> None:
    rows = [example([1] * 9, [2]), example([1], [2] * (LONGEST_ANSWER + 1)), example([1] * 3, [2])]

    assert [len(question.prompt) for question in short_questions(rows)] == [3, 9]


def test_of_many_rows_an_even_share_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_match, "MOST_ASKED", 4)
    rows = [example([i + 1], [7]) for i in range(10)]

    assert [question.prompt for question in short_questions(rows)] == [[1], [3], [6], [8]]


def test_a_batch_holds_a_bounded_number_of_tokens() -> None:
    questions = [Question([1] * length, [2]) for length in (2, 3, 3, 5, 12)]

    assert [[len(q.prompt) for q in batch] for batch in batches(questions, 10)] == [[2, 3, 3], [5], [12]]


def test_answers_are_counted_by_label_and_what_is_none_together() -> None:
    pairs = [("b", "b"), ("a", "b"), ("a", "a"), ("a", "a"), ("b", "no idea"), ("rare", "a")]

    table = confusion_table(pairs, ["a", "b"])

    assert table == {"a": {"a": 2, "b": 1}, "b": {"b": 1, OTHER: 1}, OTHER: {"a": 1}}
    assert list(table) == ["a", "b", OTHER]


@pytest.fixture
def reader(tokenizer: Tokenizer) -> Any:
    return SimpleNamespace(decode=lambda ids, skip_special_tokens: tokenizer.decode(ids))


def test_labels_are_known_by_their_text_the_most_frequent_first(
    tokenizer: Tokenizer, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = tokenizer.token_to_id(END)

    def row(label: str) -> dict[str, list[int]]:
        return example([1], [*tokenizer.encode(f" {label}", add_special_tokens=False).ids, stop])

    rows = [row("blue"), row("red"), row("red"), row("green"), row("blue"), row("red")]
    assert known_labels(reader, {stop}, rows[:3], rows[3:]) == ["red", "blue", "green"]
    monkeypatch.setattr(exact_match, "MOST_LABELS", 2)
    assert known_labels(reader, {stop}, rows) == ["red", "blue"]


def test_an_answer_ends_where_it_stops(tokenizer: Tokenizer, reader: Any) -> None:
    stop = tokenizer.token_to_id(END)
    ids = tokenizer.encode(" red", add_special_tokens=False).ids

    assert as_text(reader, [*ids, stop, *ids], {stop}) == "red"
