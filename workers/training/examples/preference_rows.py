"""Rows of pairs: what was asked, and two answers of which one is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workers.training.errors import RowFailure
from workers.training.examples.encoding import MarkedText
from workers.training.examples.rows import ConversationReader, RawRow
from workers.validation.jsonl import BadRow
from workers.validation.preference_rows import NON_PREFERRED, PREFERRED, check_preference_row


class PreferenceReader(ConversationReader):
    """A row becomes two texts, the better one first: the same talk, ended by either answer.

    Each is read as a conversation of which the last answer alone is trained.
    """

    def read_many(self, rows: Sequence[RawRow]) -> list[list[MarkedText] | RowFailure]:
        pairs = [_talks(row) for row in rows]
        talks = [talk for pair in pairs if not isinstance(pair, RowFailure) for talk in pair]
        found = iter(super().read_many(talks))
        return [pair if isinstance(pair, RowFailure) else _both(next(found), next(found)) for pair in pairs]

    def read_prompt(self, row: RawRow) -> str:
        talks = _talks(row)
        if isinstance(talks, RowFailure):
            raise talks
        return super().read_prompt(talks[0])


def _talks(row: RawRow) -> tuple[RawRow, RawRow] | RowFailure:
    try:
        check_preference_row(row.fields)
    except BadRow as error:
        return RowFailure(row.place, "BAD_ROW", str(error))
    better, worse = (_talk(row.fields["input"], row.fields[place][0]) for place in (PREFERRED, NON_PREFERRED))
    return RawRow(row.place, better), RawRow(row.place, worse)


def _talk(asked: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    earlier = [
        {**message, "weight": 0} if message["role"] == "assistant" else message
        for message in asked["messages"]
    ]
    return {"messages": [*earlier, answer], "tools": asked.get("tools")}


def _both(
    better: list[MarkedText] | RowFailure, worse: list[MarkedText] | RowFailure
) -> list[MarkedText] | RowFailure:
    if isinstance(better, RowFailure):
        return better
    return worse if isinstance(worse, RowFailure) else [*better, *worse]
