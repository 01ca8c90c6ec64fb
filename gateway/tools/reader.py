"""Reads calls out of text as it arrives: `{"name": "…", "arguments": {…}}`, or a list of these.

The text follows the grammar of `grammar.py`, so that only a few marks matter; what does not fit them is
reported by `is_whole`, and left to the caller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD = re.compile(
    r'\s*[\[,]?\s*\{\s*"name"\s*:\s*"([a-zA-Z0-9_-]+)"'
    r'\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
MARK = re.compile(r'["\\{}\[\]]')


@dataclass(frozen=True, slots=True)
class Piece:
    """The start of a call, with its name, or more of its arguments."""

    index: int
    name: str | None
    arguments: str


class CallReader:
    def __init__(self) -> None:
        self._rest = ""
        """What was received and not yet understood."""
        self._end = "}"
        """What stands after the last arguments."""
        self._index = -1
        self._depth = 0
        self._inside = False
        self._quoted = False
        self._escaped = False

    @property
    def is_whole(self) -> bool:
        """Whether calls have come, and nothing is missing of them."""
        return self._index >= 0 and not self._inside and self._rest.strip() == self._end

    def feed(self, text: str) -> list[Piece]:
        self._rest += text
        pieces: list[Piece] = []
        while self._rest:
            if self._inside:
                pieces.append(Piece(self._index, None, self._take_arguments()))
                continue
            found = HEAD.match(self._rest, 1 if self._rest.startswith("}") else 0)
            if found is None:
                break
            self._index += 1
            self._inside = True
            if "[" in self._rest[: found.start(1)]:
                self._end = "}]"
            pieces.append(Piece(self._index, found[1], ""))
            self._rest = self._rest[found.end() :]
        return pieces

    def _take_arguments(self) -> str:
        """All that there is of the arguments, up to their closing brace."""
        at = 1 if self._escaped else 0
        while found := MARK.search(self._rest, at):
            at, mark = found.end(), found[0]
            if mark == "\\":
                at += 1
            elif mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if mark in "{[" else -1
                if self._depth == 0:
                    self._inside = False
                    return self._cut(at)
        self._escaped = at > len(self._rest)
        return self._cut(len(self._rest))

    def _cut(self, at: int) -> str:
        taken, self._rest = self._rest[:at], self._rest[at:]
        return taken
