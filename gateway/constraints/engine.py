"""A grammar in the words that the engine's grammar backend reads."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.constraints.grammar import ROOT, Chars, Either, Expression, Name, Repeat, Rules, Sequence, Text

Ranges = tuple[tuple[int, int], ...]

SURROGATES = (0xD800, 0xDFFF)
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ {}:,.;")


def written(rules: Rules) -> str:
    """One rule a line, the root first. Names are ours: the engine's may have other characters."""
    ordered = [ROOT, *(name for name in rules if name != ROOT)]
    names = {name: ROOT if name == ROOT else f"r{index}" for index, name in enumerate(ordered)}
    return "\n".join(f"{names[name]} ::= {_written(rules[name], names)}" for name in ordered) + "\n"


def _written(expression: Expression, names: dict[str, str]) -> str:
    match expression:
        case Text(value):
            return f'"{"".join(map(_character, value))}"'
        case Chars(ranges, negated):
            return _class(ranges, negated)
        case Name(rule):
            return names[rule]
        case Sequence(parts):
            return " ".join(_grouped(part, names) for part in parts) or '""'
        case Either(choices):
            return " | ".join(_grouped(choice, names) for choice in choices)
        case Repeat(part, least, most):
            return _grouped(part, names) + _times(least, most)


def _grouped(expression: Expression, names: dict[str, str]) -> str:
    text = _written(expression, names)
    return text if isinstance(expression, Text | Chars | Name) else f"({text})"


def _times(least: int, most: int | None) -> str:
    match (least, most):
        case (0, None):
            return "*"
        case (1, None):
            return "+"
        case (0, 1):
            return "?"
    return f"{{{least},{'' if most is None else most}}}"


def _class(ranges: Ranges, negated: bool) -> str:
    """Half surrogates are no characters; the engine would have to be told, or write broken UTF-8."""
    whole = (*ranges, SURROGATES) if negated else tuple(_without_surrogates(ranges))
    return f"[{'^' if negated else ''}{''.join(_range(first, last) for first, last in whole)}]"


def _without_surrogates(ranges: Ranges) -> Iterator[tuple[int, int]]:
    for first, last in ranges:
        if first < SURROGATES[0]:
            yield first, min(last, SURROGATES[0] - 1)
        if last > SURROGATES[1]:
            yield max(first, SURROGATES[1] + 1), last


def _range(first: int, last: int) -> str:
    return _escape(first) if first == last else f"{_escape(first)}-{_escape(last)}"


def _character(character: str) -> str:
    return character if character in PLAIN else _escape(ord(character))


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
