"""Which grammars an engine can be given: none that has no end, and none that takes it ever longer to follow.

The engine follows all readings of an answer at once. Where a grammar has few, a token costs the same at the
end as at the start; where it repeats what may be empty, the readings multiply, and every other request of
the engine waits. Such grammars are refused. What recurses is tried as well (`trial.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.constraints import limits
from gateway.constraints.grammar import (
    ROOT,
    Either,
    Expression,
    GrammarError,
    Name,
    Repeat,
    Rules,
    Sequence,
    Text,
    names_in,
    parts_of,
    walk,
)

PASSES = 50
"""Rounds over the rules until nothing new is found. Rules in order of need take two or three."""

Property = Callable[[Expression, set[str]], bool]


def checked(rules: Rules) -> dict[str, Expression]:
    """The rules that the root needs, without choices that could never end; raises GrammarError."""
    order = _needed(rules)
    ending = _holding(rules, order, _ends)
    if ROOT not in ending:
        raise GrammarError("no text that ends could fulfil it", ROOT)
    kept = {name: _without_endless(rules[name], ending) for name in order if name in ending}
    order = _needed(kept)
    empty = empty_rules(kept)
    for name in order:
        if repeats_nothing(kept[name], empty):
            raise GrammarError("it repeats something that may be empty", name)
    return {name: kept[name] for name in order}


def require_size(rules: Rules) -> None:
    """Refuse rules that are too many, or too large with their repetitions written out."""
    if len(rules) > limits.GRAMMAR_RULES:
        raise GrammarError(f"it has more than {limits.GRAMMAR_RULES} rules")
    if sum(_expanded(each) for each in rules.values()) > limits.EXPANDED_PARTS:
        raise GrammarError("it is too large with its repetitions written out")


def may_be_empty(expression: Expression, empty: set[str]) -> bool:
    """Whether it fits no text at all; `empty` are the rules that do."""
    match expression:
        case Text(value):
            return not value
        case Name(rule):
            return rule in empty
        case Sequence(parts):
            return all(may_be_empty(part, empty) for part in parts)
        case Either(choices):
            return any(may_be_empty(choice, empty) for choice in choices)
        case Repeat(part, least):
            return least == 0 or may_be_empty(part, empty)
    return False


def empty_rules(rules: Rules) -> set[str]:
    return _holding(rules, _needed(rules), may_be_empty)


def repeats_nothing(expression: Expression, empty: set[str]) -> bool:
    """Whether it repeats something that may be empty."""
    return any(
        isinstance(part, Repeat) and part.most != 1 and may_be_empty(part.part, empty)
        for part in walk(expression)
    )


def _needed(rules: Rules) -> list[str]:
    """The rules that the root leads to; rules come after those that they are made of, but for circles."""
    if ROOT not in rules:
        raise GrammarError(f"there is no rule '{ROOT}'")
    done: list[str] = []
    seen = {ROOT}
    path = [(ROOT, names_in(rules[ROOT]))]
    while path:
        rule, names = path[-1]
        name = next(names, None)
        if name is None:
            done.append(rule)
            path.pop()
        elif name not in rules:
            raise GrammarError(f"there is no rule '{name}'", rule)
        elif name not in seen:
            seen.add(name)
            path.append((name, names_in(rules[name])))
    return done


def _expanded(expression: Expression) -> int:
    inner = 1 + sum(_expanded(part) for part in parts_of(expression))
    if isinstance(expression, Repeat):
        return inner * max(1, expression.least if expression.most is None else expression.most)
    return inner


def _holding(rules: Rules, order: list[str], holds: Property) -> set[str]:
    """The rules of which a property holds that follows from the same one of their parts."""
    found: set[str] = set()
    for _ in range(PASSES):
        before = len(found)
        for name in order:
            if name not in found and holds(rules[name], found):
                found.add(name)
        if len(found) == before:
            return found
    raise GrammarError("its rules are too entangled")


def _ends(expression: Expression, ending: set[str]) -> bool:
    match expression:
        case Name(rule):
            return rule in ending
        case Sequence(parts):
            return all(_ends(part, ending) for part in parts)
        case Either(choices):
            return any(_ends(choice, ending) for choice in choices)
        case Repeat(part, least):
            return least == 0 or _ends(part, ending)
    return True


def _without_endless(expression: Expression, ending: set[str]) -> Expression:
    """The same for texts that end. `expression` ends."""
    match expression:
        case Sequence(parts):
            return Sequence(tuple(_without_endless(part, ending) for part in parts))
        case Either(choices):
            return Either(
                tuple(_without_endless(choice, ending) for choice in choices if _ends(choice, ending))
            )
        case Repeat(part, least, most):
            if not _ends(part, ending):
                return Sequence(())
            return Repeat(_without_endless(part, ending), least, most)
    return expression


def refuse_left_recursion(rules: Rules) -> None:
    """Refuse rules that may start with themselves: a schema that is itself cannot be checked."""
    order, empty = _needed(rules), empty_rules(rules)
    starts = {name: list(dict.fromkeys(_starts(rules[name], empty))) for name in order}
    finished: set[str] = set()
    for name in order:
        _follow(name, starts, finished)


def _follow(first: str, starts: dict[str, list[str]], finished: set[str]) -> None:
    """Refuse a circle among the rules that `first` may start with. Without recursion: chains may be long."""
    path = [(first, iter(starts[first]))] if first not in finished else []
    open_rules = {first}
    while path:
        rule, nexts = path[-1]
        name = next(nexts, None)
        if name is None:
            finished.add(rule)
            open_rules.discard(rule)
            path.pop()
        elif name in open_rules:
            raise GrammarError("it may start with itself, without end", name)
        elif name not in finished:
            open_rules.add(name)
            path.append((name, iter(starts[name])))


def _starts(expression: Expression, empty: set[str]) -> list[str]:
    """The rules that may come first."""
    match expression:
        case Name(rule):
            return [rule]
        case Sequence(parts):
            found: list[str] = []
            for part in parts:
                found += _starts(part, empty)
                if not may_be_empty(part, empty):
                    break
            return found
        case Either(choices):
            return [rule for choice in choices for rule in _starts(choice, empty)]
        case Repeat(part):
            return _starts(part, empty)
    return []
