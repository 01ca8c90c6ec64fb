"""Grammars that can be read in one way only, where that can be had.

`([a-z]+ " "?)*` splits a word at every letter, and an engine that follows every split slows down with each
token. What is regular (no rule in it leads back to itself), repeats within a repetition, and can be read in
several ways is written anew as an automaton, one rule a state: `s1 ::= [a-z] s1 | " " s2 | ""`. It allows the
same texts, and costs the same at every token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from gateway.constraints import limits
from gateway.constraints.grammar import (
    LAST_CHARACTER,
    NOTHING,
    Chars,
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
    sequence,
    walk,
)
from gateway.constraints.soundness import empty_rules, repeats_nothing

Range = tuple[int, int]
States = frozenset[int]


TOO_MANY = "its repetitions can be read in too many ways"


class TooLarge(Exception):
    """The automaton has more states than are worth having."""


def determined(rules: Rules) -> dict[str, Expression]:
    """The same grammar with its nested repetitions as automata; raises GrammarError for those too large."""
    return _Rewriting(rules).all()


class _Rewriting:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._regular = regular(rules)
        self._empty = empty_rules(rules)
        self._depths: dict[str, int] = {}
        self._new: dict[str, Expression] = {}
        self._made = 0
        self._left = {
            "parts": limits.WALKED_PARTS,
            "places": limits.AUTOMATON_PLACES,
            "work": limits.AUTOMATON_WORK,
            "states": limits.AUTOMATON_STATES_TOGETHER,
        }
        """What all automata of the grammar may take together."""

    def all(self) -> dict[str, Expression]:
        return {name: self._of(name, each) for name, each in self._rules.items()} | self._new

    def _of(self, rule: str, expression: Expression) -> Expression:
        if all(name in self._regular for name in names_in(expression)):
            try:
                return self._automaton(rule, expression) if self._is_risky(expression) else expression
            except TooLarge:
                raise GrammarError(TOO_MANY, rule) from None
        match expression:
            case Sequence(parts):
                return Sequence(tuple(self._of(rule, part) for part in parts))
            case Either(choices):
                return Either(tuple(self._of(rule, choice) for choice in choices))
            case Repeat(part, least, most):
                return _flat(Repeat(self._of(rule, part), least, most))
        return expression

    def _is_risky(self, expression: Expression) -> bool:
        """Whether it repeats within a repetition or next to a counted one, or repeats what may be empty."""
        parts = [part for each in self._all(expression) for part in walk(each)]
        self._spend("parts", len(parts))
        repeats = [part for part in parts if _is_repeat(part)]
        counted = any(isinstance(part, Repeat) and part.most is not None for part in repeats)
        return self._depth(expression) > 1 or (counted and len(repeats) > 1) or self._idles(expression)

    def _spend(self, what: str, amount: int) -> None:
        self._left[what] -= amount
        if self._left[what] < 0:
            raise TooLarge

    def _idles(self, expression: Expression) -> bool:
        return any(repeats_nothing(each, self._empty) for each in self._all(expression))

    def _all(self, expression: Expression) -> list[Expression]:
        """The expression, and the rules that it leads to."""
        return [expression, *(self._rules[name] for name in self._under(expression))]

    def _under(self, expression: Expression) -> set[str]:
        """The rules that it leads to."""
        found: set[str] = set()
        waiting = [expression]
        while waiting:
            new = set(names_in(waiting.pop())) - found
            found |= new
            waiting += [self._rules[name] for name in new]
        return found

    def _depth(self, expression: Expression) -> int:
        """How deep repetitions are nested in it. What comes once at most is none."""
        if isinstance(expression, Name):
            if expression.rule not in self._depths:
                self._depths[expression.rule] = self._depth(self._rules[expression.rule])
            return self._depths[expression.rule]
        inner = max((self._depth(part) for part in parts_of(expression)), default=0)
        return inner + _is_repeat(expression)

    def _automaton(self, rule: str, expression: Expression) -> Expression:
        """The expression as an automaton, unless it has few readings as it is."""
        parts = _Parts(self._rules).of(expression)
        self._spend("places", len(parts.steps))
        automaton = _Automaton(parts)
        self._spend("work", automaton.work)
        enough = limits.READINGS if self._depth(expression) == 1 else 1
        if automaton.readings <= enough and not self._idles(expression):
            return expression
        if len(automaton.moves) > limits.AUTOMATON_STATES:
            raise TooLarge
        self._spend("states", len(automaton.moves))
        return self._written(rule, automaton)

    def _written(self, rule: str, automaton: _Automaton) -> Expression:
        self._made += 1
        prefix = f"{rule} {self._made}"
        for state, moves in automaton.moves.items():
            choices: list[Expression] = [
                sequence(Chars(tuple(ranges)), Name(f"{prefix} {to}")) for to, ranges in moves.items()
            ]
            ending = [NOTHING] if state in automaton.ends else []
            self._new[f"{prefix} {state}"] = Either((*choices, *ending))
        return Name(f"{prefix} 0")


def _is_repeat(expression: Expression) -> bool:
    """What may come more than once."""
    return isinstance(expression, Repeat) and expression.most != 1


def _flat(repeat: Repeat) -> Expression:
    """`(x+)*` is `x*`."""
    match repeat:
        case Repeat(Repeat(part, least, None), 0, None) if least <= 1:
            return Repeat(part)
        case Repeat(Repeat(part, least, None), 1, None) if least <= 1:
            return Repeat(part, least)
    return repeat


def regular(rules: Rules) -> set[str]:
    """The rules that lead to no rule that leads back to itself."""
    uses = {name: set(names_in(each)) for name, each in rules.items()}
    users: dict[str, list[str]] = {name: [] for name in rules}
    for name, used in uses.items():
        for each in used:
            users[each].append(name)
    left = {name: len(used) for name, used in uses.items()}
    ready = [name for name, count in left.items() if not count]
    found: set[str] = set()
    while ready:
        name = ready.pop()
        found.add(name)
        for user in users[name]:
            left[user] -= 1
            if not left[user]:
                ready.append(user)
    return found


@dataclass
class _Parts:
    """Steps from place to place in an expression: by a character of some ranges, or freely."""

    rules: Rules
    steps: list[list[tuple[tuple[Range, ...], int]]] = field(default_factory=list)
    free: list[list[int]] = field(default_factory=list)
    last: int = 0

    def of(self, expression: Expression) -> _Parts:
        self.last = self._add(expression, self._place())
        return self

    def _place(self) -> int:
        if len(self.steps) >= limits.AUTOMATON_PLACES:
            raise TooLarge
        self.steps.append([])
        self.free.append([])
        return len(self.steps) - 1

    def _add(self, expression: Expression, start: int) -> int:
        """Add what leads from `start` through the expression; the place where it ends."""
        match expression:
            case Text(value):
                for character in value:
                    start = self._step(start, ((ord(character), ord(character)),))
                return start
            case Chars(ranges, negated):
                return self._step(start, tuple(others(ranges)) if negated else ranges)
            case Name(rule):
                return self._add(self.rules[rule], start)
            case Sequence(parts):
                for part in parts:
                    start = self._add(part, start)
                return start
            case Either(choices):
                end = self._place()
                for choice in choices:
                    self.free[self._add(choice, start)].append(end)
                return end
        return self._repeat(expression, start)

    def _step(self, start: int, ranges: tuple[Range, ...]) -> int:
        end = self._place()
        self.steps[start].append((ranges, end))
        return end

    def _repeat(self, repeat: Repeat, start: int) -> int:
        for _ in range(repeat.least):
            start = self._add(repeat.part, self._after(start))
        end = self._place()
        if repeat.most is None:
            again = self._after(start)
            self.free[self._add(repeat.part, again)].append(again)
            self.free[again].append(end)
            return end
        for _ in range(repeat.most - repeat.least):
            self.free[start].append(end)
            start = self._add(repeat.part, self._after(start))
        self.free[start].append(end)
        return end

    def _after(self, place: int) -> int:
        """A new place that follows freely: loops must not lead back into what came before."""
        new = self._place()
        self.free[place].append(new)
        return new


class _Automaton:
    """States by number, 0 the first; from each, the ranges of characters that lead to another."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self.work = 0
        self.readings = 1
        """Places that one character may lead to, at most."""
        self.moves: dict[int, dict[int, list[Range]]] = {}
        first = self._reach([0])
        numbers = {first: 0}
        waiting = [first]
        while waiting:
            states = waiting.pop()
            moves: dict[int, list[Range]] = {}
            for span, targets in self._spans(states):
                if targets not in numbers:
                    numbers[targets] = len(numbers)
                    waiting.append(targets)
                _extend(moves.setdefault(numbers[targets], []), span)
            self.moves[numbers[states]] = moves
        self.ends = {number for states, number in numbers.items() if parts.last in states}

    def _reach(self, places: list[int]) -> States:
        """The places, and those that follow freely."""
        found = set(places)
        waiting = list(found)
        while waiting:
            for place in self._parts.free[waiting.pop()]:
                if place not in found:
                    found.add(place)
                    waiting.append(place)
        self._spend(len(found))
        return frozenset(found)

    def _spans(self, states: States) -> Iterator[tuple[Range, States]]:
        """The characters that lead on, in spans that lead to the same places."""
        steps = [step for state in states for step in self._parts.steps[state]]
        edges = sorted({edge for ranges, _ in steps for first, last in ranges for edge in (first, last + 1)})
        known: dict[frozenset[int], States] = {}
        for first, after in pairwise(edges):
            self._spend(len(steps))
            targets = frozenset(to for ranges, to in steps if _holds(ranges, first))
            if targets:
                self.readings = max(self.readings, len(targets))
                if targets not in known:
                    known[targets] = self._reach(list(targets))
                yield (first, after - 1), known[targets]

    def _spend(self, work: int) -> None:
        self.work += work
        if self.work > limits.AUTOMATON_WORK:
            raise TooLarge


def _holds(ranges: tuple[Range, ...], code: int) -> bool:
    return any(first <= code <= last for first, last in ranges)


def _extend(ranges: list[Range], span: Range) -> None:
    if ranges and ranges[-1][1] + 1 == span[0]:
        ranges[-1] = (ranges[-1][0], span[1])
    else:
        ranges.append(span)


def others(ranges: tuple[Range, ...]) -> Iterator[Range]:
    """The ranges of all other characters."""
    start = 0
    for first, last in sorted(ranges):
        if first > start:
            yield start, first - 1
        start = max(start, last + 1)
    if start <= LAST_CHARACTER:
        yield start, LAST_CHARACTER
