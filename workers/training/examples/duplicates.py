"""Rows that are there more than once, found by their hashes: sixteen bytes a row and no text."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from workers.training.examples.counts import MAX_PLACES, Counts


@dataclass(frozen=True)
class Repeats:
    count: int = 0
    places: list[str] = field(default_factory=list)
    """Where the first of them stand."""


def repeated_rows(counts: Counts) -> Repeats:
    """The rows that say what an earlier row says already."""
    digests = np.frombuffer(counts.digests, dtype=np.uint64)
    order = np.argsort(digests, kind="stable")
    again = order[1:][digests[order[1:]] == digests[order[:-1]]]
    return _repeats(counts, again)


def rows_in_both(train: Counts, evaluation: Counts) -> Repeats:
    """The evaluation's rows that are trained on as well."""
    digests = np.frombuffer(evaluation.digests, dtype=np.uint64)
    both = np.isin(digests, np.frombuffer(train.digests, dtype=np.uint64))
    return _repeats(evaluation, np.flatnonzero(both))


def _repeats(counts: Counts, positions: np.ndarray) -> Repeats:
    first = np.sort(positions)[:MAX_PLACES]
    return Repeats(len(positions), [counts.place_of(counts.row_numbers[position]) for position in first])
