"""What a pass over a dataset counts. Parts of a dataset are counted apart, and added up in their order."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MAX_PLACES = 10
MAX_LABELS = 1000
HISTOGRAM_BARS = 20
LENGTH_STEP = 16
"""Lengths are counted in steps of so many tokens: a few thousand numbers, however long rows are."""


@dataclass
class Counts:
    """What became of a dataset's rows. Tokens are those that are left after cutting."""

    rows_in: int = 0
    rows_trained: int = 0
    rows_dropped: int = 0
    """Nothing to train was left of them."""
    truncated_rows: int = 0
    examples: int = 0
    """More than rows where an answer needs a text of its own."""
    tokens: int = 0
    trained_tokens: int = 0
    cut_tokens: int = 0
    longest: int = 0
    longest_row: int = 0
    """Before cutting."""
    notes: Counter[str] = field(default_factory=Counter)
    """Rows by the code of what is to be said of them."""
    places: dict[str, list[str]] = field(default_factory=dict)
    """By the same code: where the first of them stand."""
    messages: dict[str, list[str]] = field(default_factory=dict)
    """By the code of an error: what is wrong with each of the first of them."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Rows by their tokens before cutting, rounded up to a multiple of `LENGTH_STEP`."""
    digests: array[int] = field(default_factory=lambda: array("Q"))
    """Of each row that could be read, in order: eight bytes of a hash of what is trained."""
    row_numbers: array[int] = field(default_factory=lambda: array("I"))
    """The row of each digest, counted from 0."""
    answers: list[bytes] = field(default_factory=list)
    """Hashes of different answers; the first two at most: it matters only whether there is more than one."""
    labels: Counter[str] = field(default_factory=Counter)
    """Of a classification: rows by their label, of at most `MAX_LABELS`."""
    file_starts: dict[str, int] = field(default_factory=dict)
    """The first row of each file."""

    def note(self, code: str, place: str) -> None:
        self.notes[code] += 1
        places = self.places.setdefault(code, [])
        if len(places) < MAX_PLACES:
            places.append(place)

    def fail(self, code: str, place: str, message: str) -> None:
        """Count a row that cannot be used."""
        self.note(code, place)
        messages = self.messages.setdefault(code, [])
        if len(messages) < MAX_PLACES:
            messages.append(message)

    def add_label(self, label: str, count: int = 1) -> None:
        if label in self.labels or len(self.labels) < MAX_LABELS:
            self.labels[label] += count

    def add_answer(self, digest: bytes) -> None:
        if len(self.answers) < 2 and digest not in self.answers:
            self.answers.append(digest)

    def add(self, later: Counts) -> None:
        """Take in the counts of the rows that follow."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.longest = max(self.longest, later.longest)
        self.longest_row = max(self.longest_row, later.longest_row)
        for sums, more in ((self.notes, later.notes), (self.lengths, later.lengths)):
            merge(sums, more)
        for lists, more_lists in ((self.places, later.places), (self.messages, later.messages)):
            for code, found in more_lists.items():
                lists[code] = (lists.get(code, []) + found)[:MAX_PLACES]
        self.digests += later.digests
        self.row_numbers += later.row_numbers
        for answer in later.answers:
            self.add_answer(answer)
        for label, count in later.labels.items():
            self.add_label(label, count)
        for file, start in later.file_starts.items():
            self.file_starts.setdefault(file, start)

    def place_of(self, row: int) -> str:
        """File and line of a row; empty lines stand only at the end of a file that was checked."""
        file, start = max(
            ((file, start) for file, start in self.file_starts.items() if start <= row),
            key=lambda found: found[1],
        )
        return f"{file} line {row - start + 1}"


SUMS = (
    "rows_in",
    "rows_trained",
    "rows_dropped",
    "truncated_rows",
    "examples",
    "tokens",
    "trained_tokens",
    "cut_tokens",
)


def merge(sums: Counter[Any], more: Counter[Any]) -> None:
    for key, count in more.items():
        sums[key] += count


def histogram(lengths: Counter[int]) -> list[dict[str, int]]:
    """Rows by length, in at most `HISTOGRAM_BARS` steps of one width: each row in the first that fits."""
    if not lengths:
        return []
    longest = max(lengths)
    width = -(-longest // (HISTOGRAM_BARS * LENGTH_STEP)) * LENGTH_STEP
    bars = [0] * -(-longest // width)
    for length, rows in lengths.items():
        bars[-(-length // width) - 1] += rows
    return [{"tokens": (index + 1) * width, "rows": rows} for index, rows in enumerate(bars)]
