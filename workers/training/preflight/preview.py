"""Rows as the model is trained on them: text in pieces, each trained or not, special or not, cut or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from workers.training.errors import RowFailure
from workers.training.examples.encoding import IGNORED, Encoder, MarkedText
from workers.training.examples.rows import ConversationReader, RawRow, RowReader, read_chunks

MAX_PIECES = 2000
MAX_CHARACTERS = 20_000
"""Of an example; what comes behind is left out."""


def preview(
    files: Sequence[Path],
    reader: RowReader,
    encoder: Encoder,
    leading: Sequence[int],
    cutoff: int,
    first: int,
    count: int,
) -> list[dict[str, Any]]:
    """The rows from `first` on, counted from 1: the place, and the examples or what is wrong with the row."""
    found = islice(_rows(files), first - 1, first - 1 + count)
    return [_shown(row, reader, encoder, leading, cutoff) for row in found]


def _rows(files: Sequence[Path]) -> Iterable[RawRow | RowFailure]:
    for chunk in read_chunks(files, 1):
        yield from (row for _, row in chunk.rows())


def _shown(
    row: RawRow | RowFailure, reader: RowReader, encoder: Encoder, leading: Sequence[int], cutoff: int
) -> dict[str, Any]:
    found = row if isinstance(row, RowFailure) else reader.read_many([row])[0]
    if isinstance(found, RowFailure):
        return {"place": found.place, "problem": found.message, "examples": []}
    end = not isinstance(reader, ConversationReader)
    examples = [pieces(text, encoder, leading, cutoff, end=end) for text in found]
    return {"place": row.place, "problem": "", "examples": examples}


def pieces(
    text: MarkedText, encoder: Encoder, leading: Sequence[int], cutoff: int, *, end: bool
) -> list[dict[str, Any]]:
    """The example's tokens, those of one sort together."""
    tokens = encoder.explain(text, leading, end=end)
    sorts = groupby(
        enumerate(tokens), key=lambda one: (one[1].label != IGNORED, one[1].special, one[0] >= cutoff)
    )
    shown: list[dict[str, Any]] = []
    length = 0
    for (trained, special, cut), group in sorts:
        parts = [token.text for _, token in group]
        whole = "".join(parts)
        left = MAX_CHARACTERS - length
        if left <= 0 or len(shown) >= MAX_PIECES:
            break
        shown.append(
            {
                "text": whole[:left],
                "tokens": len(parts),
                "trained": trained,
                "special": special,
                "cut": cut,
            }
        )
        length += len(whole)
    return shown
