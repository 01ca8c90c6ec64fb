"""Grammars: what an answer may be, whichever way a caller has said it.

Schemas, calls of functions and the callers' own grammars all become rules of these expressions.
`soundness.py` refuses what could keep an engine busy for ever, and `engine.py` writes the rest in the
engine's words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

ROOT = "root"
LAST_CHARACTER = 0x10FFFF


@dataclass(frozen=True, slots=True)
class Text:
    value: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of, or not of, some ranges of code points, whose ends belong to them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Name:
    rule: str


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Either:
    choices: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: Expression
    least: int = 0
    most: int | None = None
    """None: without end."""


Expression = Text | Chars | Name | Sequence | Either | Repeat
Rules = Mapping[str, Expression]

NOTHING = Sequence(())
ANY = Chars(((0, LAST_CHARACTER),))


class GrammarError(ValueError):
    """A grammar that cannot be used; `rule` is the one to blame, where there is one."""

    def __init__(self, message: str, rule: str | None = None) -> None:
        super().__init__(message)
        self.rule = rule


def sequence(*parts: Expression | str) -> Expression:
    """Texts and expressions, one after the other."""
    return Sequence(tuple(Text(part) if isinstance(part, str) else part for part in parts))


def either(*choices: Expression | str) -> Expression:
    return Either(tuple(Text(each) if isinstance(each, str) else each for each in choices))


def optional(*parts: Expression | str) -> Expression:
    return Repeat(sequence(*parts), 0, 1)


def chars(text: str, *, negated: bool = False) -> Chars:
    """A class in the usual notation, without escapes: `a-z_`."""
    ranges, at = [], 0
    while at < len(text):
        last = at + 2 if text[at + 1 : at + 2] == "-" and at + 2 < len(text) else at
        ranges.append((ord(text[at]), ord(text[last])))
        at = last + 1
    return Chars(tuple(ranges), negated)


def parts_of(expression: Expression) -> tuple[Expression, ...]:
    match expression:
        case Sequence(parts):
            return parts
        case Either(choices):
            return choices
        case Repeat(part):
            return (part,)
    return ()


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and all that it is made of."""
    left = [expression]
    while left:
        current = left.pop()
        yield current
        left.extend(reversed(parts_of(current)))


def names_in(expression: Expression) -> Iterator[str]:
    return (part.rule for part in walk(expression) if isinstance(part, Name))
