"""What a filter says, as a tree."""

from __future__ import annotations

from dataclasses import dataclass, field


class FilterError(ValueError):
    """A filter that cannot be used: what is wrong at which column, counted from 1."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(f"filter, column {column}: {message}")


@dataclass(frozen=True)
class Value:
    """A literal. `parts` are its text, cut at each wildcard: `a*b` is ("a", "b")."""

    parts: tuple[str, ...]
    quoted: bool = False
    column: int = field(default=1, compare=False)

    @property
    def text(self) -> str:
        return "*".join(self.parts)

    @property
    def has_wildcard(self) -> bool:
        return len(self.parts) > 1

    @property
    def is_star(self) -> bool:
        """Alone and without quotes: anything at all."""
        return self.parts == ("", "") and not self.quoted

    @property
    def is_null(self) -> bool:
        return self.parts == ("null",) and not self.quoted


@dataclass(frozen=True)
class Search:
    """A literal that stands alone: looked for in several fields."""

    value: Value


@dataclass(frozen=True)
class Comparison:
    path: tuple[str, ...]
    operator: str
    value: Value
    column: int = field(default=1, compare=False)


@dataclass(frozen=True)
class Not:
    operand: Node


@dataclass(frozen=True)
class And:
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    operands: tuple[Node, ...]


Node = Search | Comparison | Not | And | Or
