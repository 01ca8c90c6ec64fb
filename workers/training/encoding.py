"""From marked text to token ids and labels.

Text that users wrote is never read as a special token: where it spells one, a guard character splits it while
the template is rendered; the guard is taken out again and that place is tokenized as ordinary text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any

IGNORED = -100
"""The label of a token that is not trained."""
# Unicode's noncharacters: no text holds them, except one that was made to.
NONCHARACTERS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))


@dataclass(frozen=True)
class Marks:
    """Two characters that occur nowhere in a row."""

    trained: str
    guard: str


@dataclass(frozen=True)
class MarkedText:
    """Text without its marks. Spans are pairs of character positions."""

    text: str
    trained: list[tuple[int, int]]
    guarded: frozenset[int]


@dataclass
class Example:
    """A sequence to train on; a label is the token itself or IGNORED."""

    ids: list[int]
    labels: list[int]
    notes: set[str] = field(default_factory=set)

    @property
    def trained_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)


STOP_ADDED = "stop_added"
NO_STOP = "no_stop"
PROMPT_CHANGES = "prompt_changes"
SPECIALS_TYPED = "specials_typed"


def choose_marks(*texts: str) -> Marks | None:
    """Marks that occur in none of the texts; None where somebody used nearly all of them up."""
    free = [mark for mark in NONCHARACTERS if not any(mark in text for text in texts)]
    return Marks(free[0], free[1]) if len(free) > 1 else None


def read_marks(marked: str, marks: Marks) -> MarkedText:
    """Take the marks out, and note where they were."""
    pieces: list[str] = []
    borders: list[int] = []
    guarded: set[int] = set()
    length = 0
    for piece in re.split(f"([{marks.trained}{marks.guard}])", marked):
        if piece == marks.trained:
            borders.append(length)
        elif piece == marks.guard:
            guarded.add(length)
        else:
            pieces.append(piece)
            length += len(piece)
    spans = [(start, end) for start, end in zip(borders[::2], borders[1::2], strict=True) if start < end]
    return MarkedText("".join(pieces), spans, frozenset(guarded))


class Encoder:
    """A fast tokenizer, used by hand. `stop_ids`: the tokens that end an answer."""

    def __init__(self, tokenizer: Any, stop_ids: Iterable[int]) -> None:
        self._backend = tokenizer.backend_tokenizer
        # Files of tokenizers may carry a cut-off and padding of their own.
        self._backend.no_truncation()
        self._backend.no_padding()
        added = self._backend.get_added_tokens_decoder()
        self._special_ids = {token.content: number for number, token in added.items() if token.special}
        self._special_numbers = frozenset(self._special_ids.values())
        self._stop_ids = frozenset(stop_ids)
        self.eos_id: int | None = tokenizer.eos_token_id
        self.leading_ids: list[int] = self._leading_ids()
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._specials = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._typable = re.compile(
            "|".join(re.escape(token) for token in longest_first if len(token) > 1) or r"(?!)"
        )

    def guard(self, value: Any, guard: str) -> Any:
        """A copy of a JSON value in which no string spells a special token."""
        if isinstance(value, str):
            while self._typable.search(value):
                value = self._typable.sub(lambda found: found[0][0] + guard + found[0][1:], value)
            return value
        if isinstance(value, list):
            return [self.guard(item, guard) for item in value]
        if isinstance(value, dict):
            return {self.guard(key, guard): self.guard(item, guard) for key, item in value.items()}
        return value

    def encode(
        self, texts: Sequence[MarkedText], leading: Sequence[int], *, end: bool = False
    ) -> list[Example]:
        """Examples of the texts: `leading` tokens first, and with `end` the end-of-text token last."""
        prompts = [
            MarkedText(text.text[: text.trained[-1][0]], [], text.guarded) for text in texts if text.trained
        ]
        tokens = self._tokenize([*texts, *prompts])
        prompt_tokens = iter(tokens[len(texts) :])
        return [
            self._example(text, found, next(prompt_tokens)[0] if text.trained else [], leading, end)
            for text, found in zip(texts, tokens[: len(texts)], strict=True)
        ]

    def _example(
        self,
        text: MarkedText,
        tokens: tuple[list[int], list[tuple[int, int]]],
        prompt_ids: list[int],
        leading: Sequence[int],
        end: bool,
    ) -> Example:
        ids, offsets = tokens
        example = Example(ids, [IGNORED] * len(ids))
        if end and self.eos_id is not None:
            example = Example([*ids, self.eos_id], [IGNORED] * len(ids) + [self.eos_id])
        if ids[: len(prompt_ids)] != prompt_ids:
            example.notes.add(PROMPT_CHANGES)
        if text.guarded:
            example.notes.add(SPECIALS_TYPED)
        for start, stop in text.trained:
            first, last = _tokens_between(offsets, start, stop)
            last = self._trim(text.text, example.ids, offsets, first, last)
            self._label(example, first, last)
        if not text.trained:
            example.labels = [IGNORED] * len(example.ids)
        example.ids = [*leading, *example.ids]
        example.labels = [IGNORED] * len(leading) + example.labels
        return example

    def _trim(self, text: str, ids: list[int], offsets: list[tuple[int, int]], first: int, last: int) -> int:
        """Leave out white space after an end-of-turn token: the model has stopped by then."""
        end = last
        while end > first and text[slice(*offsets[end - 1])].isspace():
            end -= 1
        return end if end > first and ids[end - 1] in self._special_numbers else last

    def _label(self, example: Example, first: int, last: int) -> None:
        """Train a span, and the stop token behind it where the span leaves it out."""
        if first == last:
            return
        if example.ids[last - 1] not in self._special_numbers:
            if last < len(example.ids) and example.ids[last] in self._stop_ids:
                if example.labels[last] == IGNORED:
                    example.notes.add(STOP_ADDED)
                last += 1
            else:
                example.notes.add(NO_STOP)
        example.labels[first:last] = example.ids[first:last]

    def _tokenize(self, texts: Sequence[MarkedText]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        plain = [text.text for text in texts if not text.guarded]
        batch = iter(self._backend.encode_batch(plain, add_special_tokens=False))
        found = []
        for text in texts:
            if text.guarded:
                found.append(self._tokenize_guarded(text))
            else:
                encoding = next(batch)
                found.append((encoding.ids, encoding.offsets))
        return found

    def _tokenize_guarded(self, text: MarkedText) -> tuple[list[int], list[tuple[int, int]]]:
        """The template's special tokens are special; those with a guard inside are ordinary text."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        borders = [0, *self._special_borders(text), len(text.text)]
        for start, end in pairwise(borders):
            piece = text.text[start:end]
            if piece in self._special_ids and not _is_guarded(text, start, end):
                ids.append(self._special_ids[piece])
                offsets.append((start, end))
            elif piece:
                encoding = self._encode_as_text(piece)
                ids += encoding.ids
                offsets += [(start + first, start + last) for first, last in encoding.offsets]
        return ids, offsets

    def _special_borders(self, text: MarkedText) -> list[int]:
        borders = []
        position = 0
        while found := self._specials.search(text.text, position):
            guarded = _is_guarded(text, found.start(), found.end())
            position = found.start() + 1 if guarded else found.end()
            if not guarded:
                borders += [found.start(), found.end()]
        return borders

    def _encode_as_text(self, text: str) -> Any:
        self._backend.encode_special_tokens = True
        try:
            return self._backend.encode(text, add_special_tokens=False)
        finally:
            self._backend.encode_special_tokens = False

    def _leading_ids(self) -> list[int]:
        """What the tokenizer itself puts before a text: the BOS token of those that have one."""
        bare = self._backend.encode("a", add_special_tokens=False).ids
        full = self._backend.encode("a", add_special_tokens=True).ids
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return list(full[:start])
        return []


def _tokens_between(offsets: Sequence[tuple[int, int]], start: int, stop: int) -> tuple[int, int]:
    """The tokens that start within [start, stop), as a range; one across the start is the prompt's."""
    return bisect_left(offsets, start, key=itemgetter(0)), bisect_left(offsets, stop, key=itemgetter(0))


def _is_guarded(text: MarkedText, start: int, end: int) -> bool:
    return any(start < position < end for position in text.guarded)
