"""From marked text to token ids and labels.

Text that users wrote is never read as a special token: where it spells one, a guard character splits it while
the template is rendered; the guard is taken out again and that place is tokenized as ordinary text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, pairwise
from operator import itemgetter
from typing import Any, Protocol

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
    notes: frozenset[str] = frozenset()
    """What the reader has to say of it."""


@dataclass
class Example:
    """A sequence to train on; a label is the token itself or IGNORED."""

    ids: list[int]
    labels: list[int]
    notes: set[str] = field(default_factory=set)

    @property
    def trained_tokens(self) -> int:
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass(frozen=True)
class ShownToken:
    text: str
    label: int
    special: bool


# What there is to say of a row: codes of `findings.FINDINGS`.
STOP_ADDED = "STOP_ADDED"
NO_STOP = "NO_STOP"
PROMPT_CHANGES = "PROMPT_CHANGES"
SPECIALS_TYPED = "SPECIALS_TYPED"
EMPTY_ANSWER = "EMPTY_ANSWER"
TOKENS_WITHOUT_WEIGHTS = "TOKENS_WITHOUT_WEIGHTS"


def choose_marks(*texts: str) -> Marks | None:
    """Marks that occur in none of the texts; None where somebody used nearly all of them up."""
    free = list(islice((mark for mark in NONCHARACTERS if not any(mark in text for text in texts)), 2))
    return Marks(*free) if len(free) > 1 else None


def read_marks(marked: str, marks: Marks, notes: Iterable[str] = ()) -> MarkedText:
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
    return MarkedText("".join(pieces), spans, frozenset(guarded), frozenset(notes))


class Tokens(Protocol):
    """A text's tokens, and where they stand in it."""

    ids: list[int]

    def span(self, index: int) -> tuple[int, int]:
        """The characters of a token."""

    def first_from(self, position: int) -> int:
        """The first token that starts at `position` or behind it; one across it is the prompt's."""


@dataclass
class _GuardedTokens:
    ids: list[int]
    offsets: list[tuple[int, int]]

    def span(self, index: int) -> tuple[int, int]:
        return self.offsets[index]

    def first_from(self, position: int) -> int:
        return bisect_left(self.offsets, position, key=itemgetter(0))


class _PlainTokens:
    """Asks the tokenizer's own result: a list of all the offsets costs more than tokenizing."""

    def __init__(self, encoding: Any) -> None:
        self._encoding = encoding
        self.ids: list[int] = encoding.ids

    def span(self, index: int) -> tuple[int, int]:
        found: tuple[int, int] = self._encoding.token_to_chars(index)
        return found

    def first_from(self, position: int) -> int:
        low, high = 0, len(self.ids)
        while low < high:
            middle = (low + high) // 2
            if self.span(middle)[0] < position:
                low = middle + 1
            else:
                high = middle
        return low


class Encoder:
    """A fast tokenizer, used by hand. `stop_ids`: the tokens that end an answer.

    `vocabulary`: how many tokens the model has weights for; 0: not known.
    """

    def __init__(self, tokenizer: Any, stop_ids: Iterable[int], vocabulary: int = 0) -> None:
        self._backend = tokenizer.backend_tokenizer
        # Files of tokenizers may carry a cut-off and padding of their own.
        self._backend.no_truncation()
        self._backend.no_padding()
        added = self._backend.get_added_tokens_decoder()
        self._special_ids = {token.content: number for number, token in added.items() if token.special}
        self._special_numbers = frozenset(self._special_ids.values())
        self.stop_ids = frozenset(stop_ids)
        self.vocabulary = vocabulary
        self._has_more = 0 < vocabulary < self._backend.get_vocab_size()
        self.eos_id: int | None = tokenizer.eos_token_id
        self.leading_ids: list[int] = self._leading_ids()
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._specials = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # What stands before an answer is mostly the same few characters of the template.
        self._ids_alone = lru_cache(maxsize=1024)(self._tokenize_alone)
        self._typable = re.compile(
            "|".join(re.escape(token) for token in longest_first if len(token) > 1) or r"(?!)"
        )

    def to_json(self) -> str:
        """The tokenizer, for an encoder in another process."""
        text: str = self._backend.to_str()
        return text

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
        return [
            self._example(text, tokens, leading, end)
            for text, tokens in zip(texts, self._tokenize(texts), strict=True)
        ]

    def explain(self, text: MarkedText, leading: Sequence[int], *, end: bool = False) -> list[ShownToken]:
        """The example of a text token by token, with the text that each stands for."""
        (tokens,) = self._tokenize([text])
        example = self._example(text, tokens, leading, end)
        starts = [tokens.span(index)[0] for index in range(len(tokens.ids))]
        # Characters between tokens belong to the one before; of the tokens of one character the last has it.
        ends = [*starts[1:], len(text.text)]
        texts = [text.text[start:stop] for start, stop in zip(starts, ends, strict=True)]
        before = [self._text_of(number) for number in leading]
        behind = [self._text_of(number) for number in example.ids[len(leading) + len(texts) :]]
        shown = zip([*before, *texts, *behind], example.ids, example.labels, strict=True)
        return [ShownToken(what, label, number in self._special_numbers) for what, number, label in shown]

    def _text_of(self, number: int) -> str:
        found: str = self._backend.decode([number], skip_special_tokens=False)
        return found

    def _example(self, text: MarkedText, tokens: Tokens, leading: Sequence[int], end: bool) -> Example:
        ids = tokens.ids
        example = Example(ids, [IGNORED] * len(ids), set(text.notes))
        if end and self.eos_id is not None:
            example.ids = [*ids, self.eos_id]
            example.labels.append(self.eos_id)
        if text.guarded:
            example.notes.add(SPECIALS_TYPED)
        if self._has_more and max(example.ids, default=0) >= self.vocabulary:
            example.notes.add(TOKENS_WITHOUT_WEIGHTS)
        for start, stop in text.trained:
            first, last = tokens.first_from(start), tokens.first_from(stop)
            if not self._stands_alone(text, tokens, first, start):
                example.notes.add(PROMPT_CHANGES)
            last = self._trim(text.text, tokens, first, last)
            if all(self._is_empty(text.text, tokens, index) for index in range(first, last)):
                example.notes.add(EMPTY_ANSWER)
            self._label(example, first, last)
        if not text.trained:
            example.labels = [IGNORED] * len(example.ids)
            example.notes.add(EMPTY_ANSWER)
        if leading:
            example.ids = [*leading, *example.ids]
            example.labels = [IGNORED] * len(leading) + example.labels
        return example

    def _stands_alone(self, text: MarkedText, tokens: Tokens, first: int, start: int) -> bool:
        """Whether the prompt that ends at `start` has the same tokens when nothing follows it.

        A special token parts what stands before it from what stands behind: only the rest is tokenized again.
        """
        if first == 0:
            return start == 0
        begin = first - 1
        while begin > 0 and tokens.ids[begin] not in self._special_numbers:
            begin -= 1
        place = tokens.span(begin)[0]
        if text.guarded:
            guarded = frozenset(g - place for g in text.guarded if place < g < start)
            alone = self._tokenize_guarded(MarkedText(text.text[place:start], [], guarded)).ids
        else:
            alone = self._ids_alone(text.text[place:start])
        return alone == tokens.ids[begin:first]

    def _trim(self, text: str, tokens: Tokens, first: int, last: int) -> int:
        """Leave out what only closes the text, white space and the like: the model has stopped by then."""
        end = last
        while end > first and self._is_empty(text, tokens, end - 1):
            end -= 1
        ends = [index for index in range(end, last) if tokens.ids[index] in self._special_numbers]
        stops = [index for index in ends if tokens.ids[index] in self.stop_ids]
        return (stops or ends or [last - 1])[0] + 1 if end < last else last

    def _is_empty(self, text: str, tokens: Tokens, index: int) -> bool:
        """A token that says nothing: white space, or one of the special ones."""
        return tokens.ids[index] in self._special_numbers or not text[slice(*tokens.span(index))].strip()

    def _label(self, example: Example, first: int, last: int) -> None:
        """Train a span, and the stop token behind it where the span leaves it out."""
        if first == last:
            return
        if example.ids[last - 1] not in self.stop_ids:
            if last < len(example.ids) and example.ids[last] in self.stop_ids:
                if example.labels[last] == IGNORED:
                    example.notes.add(STOP_ADDED)
                last += 1
            else:
                example.notes.add(NO_STOP)
        example.labels[first:last] = example.ids[first:last]

    def _tokenize(self, texts: Sequence[MarkedText]) -> list[Tokens]:
        plain = [text.text for text in texts if not text.guarded]
        batch = iter(self._backend.encode_batch(plain, add_special_tokens=False))
        return [self._tokenize_guarded(text) if text.guarded else _PlainTokens(next(batch)) for text in texts]

    def _tokenize_alone(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _tokenize_guarded(self, text: MarkedText) -> _GuardedTokens:
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
        return _GuardedTokens(ids, offsets)

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


def _is_guarded(text: MarkedText, start: int, end: int) -> bool:
    return any(start < position < end for position in text.guarded)
