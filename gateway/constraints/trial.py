"""A trial of a grammar that recurses: how much work it is to follow a few short answers under it.

An engine follows all readings of an answer at once, and remembers where each began. Where rules lead back to
themselves, an answer of n characters may have n² readings at every character, times what the grammar
itself multiplies: a few tokens then take an engine minutes. So answers are made up here and followed as the
engine does it (Earley, "An efficient context-free parsing algorithm", 1970), and a grammar that takes too
much work is refused. What grows slowly passes: the engine cuts an answer that has taken it too long.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gateway.constraints import limits
from gateway.constraints.automaton import Range, others, regular
from gateway.constraints.grammar import (
    LAST_CHARACTER,
    Chars,
    Either,
    Expression,
    GrammarError,
    Name,
    Repeat,
    Rules,
    Sequence,
    Text,
)
from gateway.constraints.soundness import empty_rules

Item = tuple[int, int]
"""A place, and the position in the answer where its rule began."""
Choose = Callable[[list[int]], int]

TOO_MANY = "its recursion can be read in too many ways"
READING = 5
"""The work of what began earlier. What begins at a position is 1: there is no more of it than of places."""


def require_moderate(rules: Rules) -> None:
    """Refuse rules under which short answers are too much work; raises GrammarError."""
    recursive = rules.keys() - regular(rules)
    if recursive:
        trial = _Trial(_Network(rules), recursive)
        trial.run(_likeliest)
        for seed in range(limits.TRIAL_ANSWERS - 1):
            trial.run(random.Random(seed).choice)


@dataclass
class _Place:
    """A place in a rule, and what leads on from it."""

    rule: str
    is_end: bool = False
    free: list[int] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=list)
    scans: list[tuple[int, int]] = field(default_factory=list)
    """The number of a class of characters, and the place behind one of them."""


class _Network:
    """The places of all rules, by number."""

    def __init__(self, rules: Rules) -> None:
        self.places: list[_Place] = []
        self.starts: dict[str, int] = {}
        self.classes: list[list[Range]] = []
        """Ranges in order that do not overlap."""
        self.empty = empty_rules(rules)
        self._numbers: dict[Chars, int] = {}
        for name, expression in rules.items():
            self._rule = name
            self.starts[name] = self._new()
            self.places[self._add(expression, self.starts[name])].is_end = True

    def _new(self) -> int:
        self.places.append(_Place(self._rule))
        return len(self.places) - 1

    def _add(self, expression: Expression, start: int) -> int:
        """Add what leads from `start` through the expression; the place where it ends."""
        match expression:
            case Text(value):
                for character in value:
                    start = self._scan(start, Chars(((ord(character), ord(character)),)))
                return start
            case Chars():
                return self._scan(start, expression)
            case Name(rule):
                end = self._new()
                self.places[start].calls.append((rule, end))
                return end
            case Sequence(parts):
                for part in parts:
                    start = self._add(part, start)
                return start
            case Either(choices):
                end = self._new()
                for choice in choices:
                    self.places[self._add(choice, start)].free.append(end)
                return end
        return self._repeat(expression, start)

    def _scan(self, start: int, chars: Chars) -> int:
        if chars not in self._numbers:
            self._numbers[chars] = len(self.classes)
            unlike = tuple(others(chars.ranges))
            self.classes.append(list(unlike if chars.negated else others(unlike)))
        end = self._new()
        self.places[start].scans.append((self._numbers[chars], end))
        return end

    def _repeat(self, repeat: Repeat, start: int) -> int:
        for _ in range(repeat.least):
            start = self._add(repeat.part, start)
        end = self._new()
        if repeat.most is None:
            again = self._new()
            self.places[start].free.append(again)
            self.places[self._add(repeat.part, again)].free.append(again)
            self.places[again].free.append(end)
            return end
        for _ in range(repeat.most - repeat.least):
            self.places[start].free.append(end)
            start = self._add(repeat.part, start)
        self.places[start].free.append(end)
        return end


class _Trial:
    """Answers are begun with every recursive rule at once: each is tried, wherever the root has it."""

    def __init__(self, network: _Network, recursive: set[str]) -> None:
        self._network = network
        self._recursive = recursive
        self._work = 0
        self._items: dict[Item, None] = {}
        """Those at the last position, in the order that they were found."""
        self._callers: list[dict[str, list[Item]]] = []
        """By position, then by rule: the items that go on when a rule that began there ends."""

    def run(self, choose: Choose) -> None:
        """Follow as many characters as a trial has, in one answer or in several that come to an end."""
        choices: list[int] = []
        for _ in range(limits.TRIAL_CHARACTERS):
            if not choices:
                self._callers.clear()
                self._enter([(self._network.starts[name], 0) for name in sorted(self._recursive)])
                choices = self._choices()
            if choices:
                self._enter(self._behind(choose(choices)))
                choices = self._choices()

    def _behind(self, code: int) -> list[Item]:
        places, classes = self._network.places, self._network.classes
        return [
            (to, origin)
            for place, origin in self._items
            for number, to in places[place].scans
            if _holds(classes[number], code)
        ]

    def _choices(self) -> list[int]:
        """Characters that may come next, the one that most readings go on with first."""
        places, classes = self._network.places, self._network.classes
        found = Counter(number for place, _ in self._items for number, _ in places[place].scans)
        counted = [(classes[number], count) for number, count in found.most_common(limits.TRIAL_CHOICES)]
        readings = {
            code: sum(count for ranges, count in counted if _holds(ranges, code))
            for code in dict.fromkeys(ranges[0][0] for ranges, _ in counted if ranges)
        }
        return sorted(readings, key=readings.__getitem__, reverse=True)

    def _enter(self, found: list[Item]) -> None:
        """Make these the items of the next position, with all that follows from them without a character."""
        here = len(self._callers)
        self._callers.append({})
        self._items = dict.fromkeys(found)
        waiting = list(self._items)
        while waiting:
            place, origin = waiting.pop()
            for item in self._following(self._network.places[place], origin, here):
                self._spend(item, here)
                if item not in self._items:
                    self._items[item] = None
                    waiting.append(item)

    def _following(self, place: _Place, origin: int, here: int) -> Iterator[Item]:
        for to in place.free:
            yield to, origin
        for rule, to in place.calls:
            self._callers[here].setdefault(rule, []).append((to, origin))
            yield self._network.starts[rule], here
            if rule in self._network.empty:
                yield to, origin
        # What ends where it began is empty, and its callers went on at once.
        if place.is_end and origin < here:
            yield from self._callers[origin].get(place.rule, ())

    def _spend(self, item: Item, here: int) -> None:
        self._work += READING if item[1] < here else 1
        if self._work > limits.TRIAL_WORK:
            raise GrammarError(TOO_MANY, self._to_blame())

    def _to_blame(self) -> str:
        """The recursive rule that has most of the readings."""
        rules = Counter(self._network.places[place].rule for place, _ in self._items)
        return max(sorted(self._recursive), key=lambda name: rules[name])


def _likeliest(codes: list[int]) -> int:
    return codes[0]


def _holds(ranges: list[Range], code: int) -> bool:
    at = bisect_right(ranges, (code, LAST_CHARACTER)) - 1
    return at >= 0 and ranges[at][1] >= code
