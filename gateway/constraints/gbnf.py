"""Grammars as callers write them: the notation of llama.cpp, with errors that point at line and column.

    # a comment
    root ::= "text" [a-z] [^\\n] . rule (grouped | alternatives) optional? any* some+ counted{2,4}

A rule ends at the end of its line, except inside parentheses and next to `|`. Rule names are words of
letters, digits and dashes; underscores are taken, too. Characters may be escaped as `\\n`, `\\x41`,
`\\u3042` or `\\U0001F600`, and a line break inside quotes or brackets stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from gateway.constraints import limits
from gateway.constraints.automaton import determined
from gateway.constraints.grammar import (
    ANY,
    LAST_CHARACTER,
    NOTHING,
    Chars,
    Either,
    Expression,
    GrammarError,
    Name,
    Repeat,
    Sequence,
    Text,
)
from gateway.constraints.soundness import checked, require_size
from gateway.constraints.trial import require_moderate

TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r]|\#[^\n]*)+)
      | (?P<line>\n)
      | (?P<name>[A-Za-z0-9_][A-Za-z0-9_-]*)
      | (?P<define>::=)
      | (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<chars>\[(?:[^\]\\]|\\.)*\])
      | (?P<times>[*+?])
      | (?P<counted>\{[^}\n]*\})
      | (?P<mark>[|().])""",
    re.VERBOSE | re.DOTALL,
)
COUNTED = re.compile(r"\{\s*(\d{1,9})\s*(?:(,)\s*(\d{1,9})?\s*)?\}")
CHARACTER = re.compile(
    r"\\(?:x(?P<x>[0-9A-Fa-f]{2})|u(?P<u>[0-9A-Fa-f]{4})|U(?P<U>[0-9A-Fa-f]{8})|(?P<one>.))|(?P<plain>[^\\])",
    re.DOTALL,
)
SHORT = {"n": "\n", "r": "\r", "t": "\t", **{each: each for each in "\\\"'[]()^-./|*+?{}"}}
TIMES: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
UNCLOSED = {'"': 'a text that is not closed with "', "[": "a class that is not closed with ]"}


class GbnfError(ValueError):
    """What is wrong, and where: the message begins with line and column."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    at: int


@lru_cache(maxsize=256)
def read_gbnf(text: str) -> dict[str, Expression]:
    """The rules of a grammar that an engine can be given; raises GbnfError."""
    if len(text) > limits.GRAMMAR_CHARACTERS:
        raise GbnfError(f"it is longer than {limits.GRAMMAR_CHARACTERS} characters")
    reader = _Reader(text)
    rules = reader.rules()
    if not rules:
        raise GbnfError("it has no rules")
    try:
        require_size(rules)
        sound = checked(determined(rules))
        require_moderate(sound)
        return sound
    except RecursionError:
        raise GbnfError("its rules are nested too deeply") from None
    except GrammarError as error:
        if error.rule is None:
            raise GbnfError(str(error)) from None
        # What was made of a rule on the way is called after it, with a space that no name has.
        own = error.rule.partition(" ")[0]
        message = str(error) if str(error).startswith("there is no") else f"rule '{own}': {error}"
        raise _error(text, reader.place_of(error, own), message) from None


def _error(text: str, at: int, message: str) -> GbnfError:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return GbnfError(f"line {line}, column {column}: {message}")


class _Reader:
    """Reads tokens from left to right. Line breaks are tokens, which groups and `|` skip."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0
        self._defined: dict[str, int] = {}
        self._used: dict[str, int] = {}

    def place_of(self, error: GrammarError, rule: str) -> int:
        """Where a missing rule is asked for, or else where the rule to blame is defined."""
        missing = next((name for name in self._used if name not in self._defined), None)
        if missing is not None and str(error) == f"there is no rule '{missing}'":
            return self._used[missing]
        return self._defined[rule]

    def rules(self) -> dict[str, Expression]:
        rules: dict[str, Expression] = {}
        self._skip_lines()
        while (token := self._peek()).kind != "end":
            if token.kind != "name":
                raise self._unexpected("the name of a rule")
            if token.text in rules:
                raise _error(self._text, token.at, f"there are two rules '{token.text}'")
            self._take()
            if self._peek().kind != "define":
                raise self._unexpected("::=")
            self._take()
            self._skip_lines()
            self._defined[token.text] = token.at
            rules[token.text] = self._alternatives(inside=False)
            if self._peek().kind not in ("line", "end"):
                raise self._unexpected("the end of the rule")
            self._skip_lines()
        self._require_all_named(rules)
        return rules

    def _require_all_named(self, rules: dict[str, Expression]) -> None:
        for name, at in self._used.items():
            if name not in rules:
                raise _error(self._text, at, f"there is no rule '{name}'")

    def _alternatives(self, *, inside: bool) -> Expression:
        choices = [self._sequence(inside=inside)]
        while self._at_bar():
            self._take()
            self._skip_lines()
            choices.append(self._sequence(inside=inside))
        return choices[0] if len(choices) == 1 else Either(tuple(choices))

    def _at_bar(self) -> bool:
        """Whether `|` comes next, be it at the start of the next line."""
        before = self._next
        self._skip_lines()
        if self._peek().text == "|":
            return True
        self._next = before
        return False

    def _sequence(self, *, inside: bool) -> Expression:
        parts: list[Expression] = []
        while True:
            if inside:
                self._skip_lines()
            part = self._part()
            if part is None:
                return parts[0] if len(parts) == 1 else (Sequence(tuple(parts)) if parts else NOTHING)
            parts.append(self._repeated(part))

    def _part(self) -> Expression | None:
        token = self._peek()
        match token.kind:
            case "text":
                self._take()
                return Text("".join(map(chr, self._characters(token))))
            case "chars":
                self._take()
                return self._class(token)
            case "name":
                self._take()
                self._used.setdefault(token.text, token.at)
                return Name(token.text)
        if token.text == ".":
            self._take()
            return ANY
        return self._group() if token.text == "(" else None

    def _group(self) -> Expression:
        opening = self._take()
        self._depth += 1
        if self._depth > limits.GROUP_DEPTH:
            raise _error(self._text, opening.at, f"groups are nested more than {limits.GROUP_DEPTH} deep")
        inner = self._alternatives(inside=True)
        self._skip_lines()
        if self._peek().text != ")":
            raise self._unexpected(f"the ) of the ( {_place(self._text, opening.at)}")
        self._take()
        self._depth -= 1
        return inner

    def _repeated(self, part: Expression) -> Expression:
        token = self._peek()
        if token.kind not in ("times", "counted"):
            return part
        self._take()
        if self._peek().kind in ("times", "counted"):
            raise _error(self._text, self._peek().at, "a repetition is repeated; put it into parentheses")
        least, most = TIMES[token.text] if token.kind == "times" else self._counts(token)
        return Repeat(part, least, most)

    def _counts(self, token: Token) -> tuple[int, int | None]:
        found = COUNTED.fullmatch(token.text)
        if found is None:
            raise _error(self._text, token.at, "a repetition must be {m}, {m,} or {m,n}")
        least = int(found[1])
        most = least if found[2] is None else (int(found[3]) if found[3] else None)
        if max(least, most or 0) > limits.REPEATS:
            raise _error(self._text, token.at, f"a repetition may count to {limits.REPEATS} at most")
        if most is not None and most < max(1, least):
            raise _error(self._text, token.at, "a repetition must go from few to many, and reach 1")
        return least, most

    def _class(self, token: Token) -> Expression:
        negated = token.text.startswith("[^")
        codes = self._characters(token, start=2 if negated else 1, dashes=True)
        if not codes:
            raise _error(self._text, token.at, "a class must hold a character")
        ranges, at = [], 0
        while at < len(codes):
            if at + 2 < len(codes) and codes[at + 1] == DASH:
                first, last = codes[at], codes[at + 2]
                at += 3
            else:
                first = last = codes[at]
                at += 1
            first, last = (ord("-") if each == DASH else each for each in (first, last))
            if first > last:
                raise _error(self._text, token.at, f"the range from {chr(first)!r} to {chr(last)!r} is empty")
            ranges.append((first, last))
        return Chars(tuple(ranges), negated)

    def _characters(self, token: Token, start: int = 1, *, dashes: bool = False) -> list[int]:
        """The code points between a token's delimiters; with `dashes`, a bare `-` is DASH."""
        codes, at, end = [], start, len(token.text) - 1
        while at < end:
            found = CHARACTER.match(token.text, at, end)
            if found is None:
                raise _error(self._text, token.at + at, "an escape that is cut off")
            codes.append(DASH if dashes and found["plain"] == "-" else self._code(found, token.at + at))
            at = found.end()
        return codes

    def _code(self, found: re.Match[str], at: int) -> int:
        if found["plain"]:
            return ord(found["plain"])
        if found["one"]:
            if found["one"] not in SHORT:
                raise _error(self._text, at, f"there is no escape \\{found['one']}")
            return ord(SHORT[found["one"]])
        code = int(found["x"] or found["u"] or found["U"], 16)
        if code > LAST_CHARACTER or 0xD800 <= code <= 0xDFFF:
            raise _error(self._text, at, f"there is no character U+{code:04X}")
        return code

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _skip_lines(self) -> None:
        while self._peek().kind == "line":
            self._next += 1

    def _unexpected(self, wanted: str) -> GbnfError:
        token = self._peek()
        found = {"end": "the end of the grammar", "line": "the end of the line"}.get(token.kind, token.text)
        return _error(self._text, token.at, f"expected {wanted}, found {found[:40]}")


DASH = -1


def _place(text: str, at: int) -> str:
    return f"of line {text.count(chr(10), 0, at) + 1}"


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise _error(text, at, UNCLOSED.get(text[at], f"{text[at]!r} has no meaning here"))
        if found.lastgroup != "space":
            yield Token(found.lastgroup or "", found[0], at)
        at = found.end()
    yield Token("end", "", len(text))
