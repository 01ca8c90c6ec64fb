"""Whether a model answers held-out rows exactly as they do: greedy generation, in batches, of bounded cost.

An example's question is what stands before its last trained span, and that span is the answer. At most
`MOST_ASKED` rows are asked, spread evenly, and of them only those whose answer is short: an answer of a
hundred words is never matched to the letter, and would only cost time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig

from workers.training.examples.dataset import spread
from workers.training.examples.encoding import IGNORED

MOST_ASKED = 500
LONGEST_ANSWER = 32
"""Tokens, with the one that stops."""
MOST_LABELS = 50
MOST_COUNTED = 100_000
"""Rows whose labels are counted."""
OTHER = "(other)"
"""Stands for every answer that is none of the labels, and for labels beyond the most frequent ones."""
ROWS_AT_ONCE = 64
TOKENS_AT_ONCE = 16_384
"""Padded tokens of the questions of one batch."""


@dataclass(frozen=True)
class Question:
    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class ExactMatch:
    rows: int
    """That were asked."""
    matched: int
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of a classification: label → what the model said → how often."""

    @property
    def share(self) -> float:
        return self.matched / self.rows

    def as_message(self) -> dict[str, Any]:
        found = {"exact_match_rows": self.rows, "exact_matches": self.matched}
        return found | ({"confusion": self.confusion} if self.confusion else {})


def measure_exact_match(
    model: Any,
    tokenizer: Any,
    stop_ids: Iterable[int],
    examples: Any,
    labels: Sequence[str],
    is_stopping: Callable[[], bool],
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> ExactMatch | None:
    """Ask the model as it is now. `labels`: those of a classification, else none.

    `tokens_at_once`: that surely fit into memory.

    None when it was asked to stop half-way, and where no answer is short enough.
    """
    asking = _Asking(model, tokenizer, sorted(stop_ids))
    pairs: list[tuple[str, str]] = []
    for batch in batches(list(short_questions(examples)), tokens_at_once):
        if is_stopping():
            return None
        said = asking.answers(batch)
        pairs += zip((asking.text(question.answer) for question in batch), said, strict=True)
    if not pairs:
        return None
    matched = sum(expected == said for expected, said in pairs)
    return ExactMatch(len(pairs), matched, confusion_table(pairs, labels) if labels else {})


def short_questions(examples: Any) -> Iterator[Question]:
    """The rows to ask, those of about the same length beside each other."""
    found = (question_of(examples[i]) for i in spread(len(examples), MOST_ASKED))
    short = [question for question in found if question.prompt and len(question.answer) <= LONGEST_ANSWER]
    yield from sorted(short, key=lambda question: len(question.prompt))


def batches(questions: Sequence[Question], tokens_at_once: int = TOKENS_AT_ONCE) -> Iterator[list[Question]]:
    """Of questions in the order of their length: as many at once as memory surely holds."""
    batch: list[Question] = []
    for question in questions:
        if len(batch) == ROWS_AT_ONCE or (len(batch) + 1) * len(question.prompt) > tokens_at_once:
            if batch:
                yield batch
            batch = []
        batch.append(question)
    if batch:
        yield batch


def question_of(example: Mapping[str, Any]) -> Question:
    """The last trained span of an example, and what stands before it."""
    ids, labels = example["input_ids"], example["labels"]
    end = next((i + 1 for i in reversed(range(len(labels))) if labels[i] != IGNORED), 0)
    start = next((i + 1 for i in reversed(range(end)) if labels[i] == IGNORED), 0)
    return Question(list(ids[:start]), list(ids[start:end]))


def confusion_table(pairs: Iterable[tuple[str, str]], labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """label → answer → how often; rows and columns in the order of `labels`, and last of all the others."""
    order = {label: place for place, label in enumerate(labels)}
    counts = Counter(
        tuple(text if text in order else OTHER for text in (expected, said)) for expected, said in pairs
    )
    table: dict[str, dict[str, int]] = {}
    for (expected, said), count in sorted(
        counts.items(), key=lambda item: [order.get(text, len(order)) for text in item[0]]
    ):
        table.setdefault(expected, {})[said] = count
    return table


def known_labels(tokenizer: Any, stop_ids: Iterable[int], *datasets: Any) -> list[str]:
    """The labels of a classification's rows, the most frequent first; at most MOST_LABELS of them."""
    answers: Counter[tuple[int, ...]] = Counter()
    for examples in datasets:
        count = min(len(examples), MOST_COUNTED)
        answers.update(tuple(question_of(examples[i]).answer) for i in range(count))
    found: Counter[str] = Counter()
    for answer, times in answers.items():
        found[as_text(tokenizer, answer, set(stop_ids))] += times
    return [label for label, _ in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:MOST_LABELS]]


def as_text(tokenizer: Any, ids: Sequence[int], stop_ids: set[int]) -> str:
    """An answer as people compare it: up to where it stops, and without the space around it."""
    end = next((i for i, number in enumerate(ids) if number in stop_ids), len(ids))
    return str(tokenizer.decode(list(ids[:end]), skip_special_tokens=True)).strip()


class _Asking:
    """A model, and how it is asked: nothing is drawn by lot, whatever its own settings say."""

    def __init__(self, model: Any, tokenizer: Any, stop_ids: list[int]) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._pad = next((number for number in (tokenizer.pad_token_id, *stop_ids) if number is not None), 0)

    def text(self, ids: Sequence[int]) -> str:
        return as_text(self._tokenizer, ids, set(self._stop_ids))

    def answers(self, questions: Sequence[Question]) -> list[str]:
        was_training = self._model.training
        self._model.eval()
        try:
            return [self.text(ids) for ids in self._generate(questions)]
        finally:
            self._model.train(was_training)

    def _generate(self, questions: Sequence[Question]) -> list[list[int]]:
        width = max(len(question.prompt) for question in questions)
        padding = [width - len(question.prompt) for question in questions]
        rows = [[self._pad] * pad + question.prompt for pad, question in zip(padding, questions, strict=True)]
        masks = [[0] * pad + [1] * (width - pad) for pad in padding]
        device = self._model.device
        with torch.no_grad():
            found = self._model.generate(
                input_ids=torch.tensor(rows, device=device),
                attention_mask=torch.tensor(masks, device=device),
                generation_config=self._settings(max(len(question.answer) for question in questions)),
            )
        return [row[width:] for row in found.tolist()]

    def _settings(self, longest: int) -> Any:
        """One token more than the longest answer has: who goes on then does not match."""
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            max_new_tokens=longest + 1,
            eos_token_id=self._stop_ids or None,
            pad_token_id=self._pad,
        )
