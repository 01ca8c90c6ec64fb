"""Reads the filter language of AIP-160 (https://google.aip.dev/160) into a tree, by `filter.lark`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from controlplane.rest.filters.nodes import And, Comparison, FilterError, Node, Not, Or, Search, Value

MAX_LENGTH = 4096
MAX_DEPTH = 20
MAX_TERMS = 100
MAX_WILDCARDS = 10
"""In one value."""
SHOWN = 100
"""Characters of a filter that an error repeats."""

PIECE = re.compile(r"\\(?P<escaped>.)|(?P<star>\*)|(?P<plain>[^\\*]+)", re.DOTALL)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", **{itself: itself for itself in "\\\"'*"}}

EXPECTED = {
    "WORD": "a field or a value",
    "COMPARATOR": "one of = != < <= > >= :",
    "_AND": "AND",
    "_OR": "OR",
    "_NOT": "NOT",
    "_OPEN": '"("',
    "_CLOSE": '")"',
    "$END": "the end",
}
"""The kinds of tokens that errors name; what else could stand there would only distract."""


def parse_filter(text: str) -> Node | None:
    """The tree of a filter, or None of an empty one; FilterError for what is none."""
    if len(text) > MAX_LENGTH:
        raise FilterError(MAX_LENGTH + 1, f"a filter may have at most {MAX_LENGTH} characters")
    try:
        found: Node | None = _parser().parse(text)  # type: ignore[assignment]
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    return found


@lru_cache(maxsize=1)
def _parser() -> Lark:
    grammar = Path(__file__).with_name("filter.lark").read_text()
    return Lark(grammar, parser="lalr", transformer=TreeBuilder(), postlex=Limits())


class Limits:
    """Refuses too much of a filter while its tokens are read."""

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth = terms = 0
        before = ""
        for token in stream:
            depth += (token.type in ("_OPEN", "CALL")) - (token.type == "_CLOSE")
            terms += token.type in ("WORD", "STRING", "TIME") and before not in ("_DOT", "COMPARATOR")
            before = token.type
            if depth > MAX_DEPTH:
                raise FilterError(_column(token), f"parentheses may be at most {MAX_DEPTH} deep")
            if terms > MAX_TERMS:
                raise FilterError(_column(token), f"a filter may have at most {MAX_TERMS} terms")
            yield token


class TreeBuilder(Transformer[Token, Any]):
    """Makes the tree while the text is parsed, innermost first."""

    def start(self, found: list[Node]) -> Node | None:
        return found[0] if found else None

    def expression(self, operands: list[Node]) -> Node:
        return operands[0] if len(operands) == 1 else And(tuple(operands))

    sequence = expression

    def factor(self, operands: list[Node]) -> Node:
        return operands[0] if len(operands) == 1 else Or(tuple(operands))

    def term(self, found: list[Node]) -> Node:
        return found[0]

    composite = term

    def negation(self, found: list[Node]) -> Node:
        return Not(found[0])

    def search(self, found: list[list[Token]]) -> Node:
        return Search(_value(found[0]))

    def comparison(self, found: list[Any]) -> Node:
        member, comparator, argument = found
        path = tuple(_plain(token) for token in member)
        if isinstance(argument, list):
            return Comparison(path, str(comparator), _value(argument), _column(member[0]))
        if comparator == "!=":
            return Not(_distribute(path, "=", argument, _column(member[0])))
        return _distribute(path, str(comparator), argument, _column(member[0]))

    def member(self, tokens: list[Token]) -> list[Token]:
        return tokens

    signed = member

    def call(self, found: list[Any]) -> Any:
        raise FilterError(_column(found[0]), f"there is no function {found[0][:-1]}()")


def _distribute(path: tuple[str, ...], operator: str, argument: Node, column: int) -> Node:
    """`a = (b OR c)` is `(a = b OR a = c)`, and `a != (b OR c)` its opposite."""
    match argument:
        case Search(value):
            return Comparison(path, operator, value, column)
        case Not(operand):
            return Not(_distribute(path, operator, operand, column))
        case And(operands):
            return And(tuple(_distribute(path, operator, operand, column) for operand in operands))
        case Or(operands):
            return Or(tuple(_distribute(path, operator, operand, column) for operand in operands))
    raise FilterError(argument.column, f"expected values only in the parentheses after {operator}")


def _value(tokens: Sequence[Token]) -> Value:
    parts = [""]
    for number, token in enumerate(tokens):
        first, *rest = _parts(token)
        parts[-1] += ("." if number else "") + first
        parts += rest
    if len(parts) > MAX_WILDCARDS + 1:
        raise FilterError(_column(tokens[0]), f"a value may have at most {MAX_WILDCARDS} wildcards")
    quoted = tokens[0].type == "STRING"
    return Value(tuple(parts), quoted, _column(tokens[0]))


def _parts(token: Token) -> list[str]:
    """The text of a token, cut at each `*` that is not escaped. Only strings have escapes."""
    if token.type != "STRING":
        return token.split("*")
    parts = [""]
    for piece in PIECE.finditer(token, 1, len(token) - 1):
        if piece["star"]:
            parts.append("")
        elif (escaped := piece["escaped"]) and escaped not in ESCAPES:
            raise FilterError(_column(token) + piece.start(), f"expected one of {' '.join(ESCAPES)} after \\")
        else:
            parts[-1] += ESCAPES[escaped] if escaped else piece["plain"]
    return parts


def _plain(token: Token) -> str:
    return "*".join(_parts(token))


def _column(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _syntax_error(text: str, error: UnexpectedInput) -> FilterError:
    if isinstance(error, UnexpectedToken):
        expected, place = error.expected, error.token.start_pos
        found = f'"{error.token[:SHOWN]}"' if error.token.type != "$END" else "the end"
        column = len(text) + 1 if error.token.type == "$END" else (place or 0) + 1
        return FilterError(column, f"expected {_expected(expected)}, found {found}")
    assert isinstance(error, UnexpectedCharacters)
    place = error.pos_in_stream or 0
    if text[place] in "\"'":
        return FilterError(place + 1, f"expected a closing {text[place]} after this one")
    return FilterError(place + 1, f'expected {_expected(error.allowed)}, found "{text[place]}"')


def _expected(terminals: Any) -> str:
    words = [word for name, word in EXPECTED.items() if name in terminals]
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words) or "the end"
