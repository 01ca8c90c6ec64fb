"""Command lines the Go way, turned into the order that the command tree expects.

firectl lets global flags stand anywhere, takes `--flag=true` and `--flag=false` for switches, and knows nouns
in the singular and the plural. Here a command line is read once and put into one canonical order: global
flags, command words, the rest. Which options take a value depends on the command, so its words are looked for
first.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

_TRUE = frozenset({"true", "t", "1", "TRUE", "True", "T"})
_FALSE = frozenset({"false", "f", "0", "FALSE", "False", "F"})
_NEGATED = {**dict.fromkeys(_TRUE, "false"), **dict.fromkeys(_FALSE, "true")}
_HELP = frozenset({"-h", "--help"})


class Words(NamedTuple):
    """The words that commands are made of."""

    verbs: Mapping[str, str]  # every spelling of a verb that takes a noun -> the verb
    nouns: Mapping[str, str]  # every spelling of a noun -> the noun in the singular
    alone: frozenset[str] = frozenset()  # verbs that take no noun: `deploy MODEL`
    plurals: Mapping[str, str] = MappingProxyType({})  # the noun -> its plural, for `list`


class Options(NamedTuple):
    """The names of options: those that take a value, and switches."""

    values: frozenset[str]
    switches: frozenset[str]

    def __or__(self, other: "Options") -> "Options":
        return Options(self.values | other.values, self.switches | other.switches)


GLOBAL = Options(
    values=frozenset(
        {"-a", "--account-id", "--api-key", "-p", "--profile", "-o", "--output"}
        | {"-s", "--server", "--base-url"}
    ),
    switches=frozenset({"--dry-run", "--debug", "--quiet"}),
)


class Line(NamedTuple):
    """A command line in order."""

    before: tuple[str, ...]  # global flags
    command: tuple[str, ...]  # one or two words in their canonical spelling; none on an empty line
    rest: tuple[str, ...]
    positional: tuple[str, ...]  # the words that are neither options nor their values, as typed
    dangling: str = ""  # the last word, when it is an option that lacks its value

    @property
    def canonical(self) -> list[str]:
        return [*self.before, *self.command, *self.rest]


def spoken(
    argv: Sequence[str], words: Words, options: Options, *, guess: bool = False
) -> tuple[str, ...] | None:
    """The canonical words of the command.

    None when an option that is not among `options` stands before them: whether the next word is its value
    cannot be told then. With `guess` it is taken for none.
    """
    found: list[str] = []
    tokens = iter(argv)
    for token in tokens:
        if token == "--":
            break
        if not _is_option(token):
            found.append(token)
            if len(found) == 2 or token in words.alone:
                break
            continue
        name, value = _split_option(token, options)
        if name in options.values:
            _value(value, tokens)
        elif value is None and not guess and name not in options.switches | _HELP:
            return None
    return tuple(_canonical_words(_command(found, words), words))


def read(argv: Sequence[str], words: Words, options: Options) -> Line:
    """Puts a command line in order; `options` are the global ones and those of its command."""
    before: list[str] = []
    rest: list[str] = []
    dangling = ""
    places: list[int] = []  # where the positional words stand in `rest`
    tokens = iter(argv)
    for token in tokens:
        if token == "--":
            rest += ["--", *tokens]
        elif not _is_option(token):
            places.append(len(rest))
            rest.append(token)
        else:
            name, value = _split_option(token, options)
            target = before if name in GLOBAL.values | GLOBAL.switches else rest
            if name in options.switches:
                target += _switch(name, value)
            elif name in options.values:
                given = _value(value, tokens)
                target += [name, given] if given is not None else []
                dangling = name if given is None else ""
            else:
                target.append(token)
    positional = [rest[place] for place in places]
    command = _command(positional, words)
    others = [token for place, token in enumerate(rest) if place not in places[: len(command)]]
    named = tuple(_canonical_words(command, words))
    return Line(tuple(before), named, tuple(others), tuple(positional), dangling)


def _is_option(token: str) -> bool:
    return token.startswith("-") and len(token) > 1


def _command(positional: Sequence[str], words: Words) -> Sequence[str]:
    """The words that name the command: two in `model create`, one in `deploy model`."""
    first, second = [*positional[:2], "", ""][:2]
    if first in words.nouns:
        complete = second in words.verbs
    else:
        complete = first in words.verbs and first not in words.alone and second in words.nouns
    return positional[: 2 if complete else 1]


def _split_option(token: str, options: Options) -> tuple[str, str | None]:
    """`--name=value`, `-o json`, `-ojson` and `-o=json` as (name, value or None); `--no-name` is false."""
    if token.startswith("--"):
        name, equals, value = token.partition("=")
        positive = f"--{name.removeprefix('--no-')}"
        if name.startswith("--no-") and name not in options.switches and positive in options.switches:
            return positive, _NEGATED.get(value, value) if equals else "false"
        return name, value if equals else None
    name, value = token[:2], token[2:]
    if not value or name not in options.values | options.switches:
        return token, None
    return name, value.removeprefix("=")


def _switch(name: str, value: str | None) -> Iterable[str]:
    if value is None or value in _TRUE:
        return [name]
    if value in _FALSE:
        return [_opposite(name)] if name.startswith("--") else []
    return [f"{name}={value}"]  # left as it stands: the parser says that a switch takes no value


def _opposite(name: str) -> str:
    return (
        f"--{name.removeprefix('--no-')}" if name.startswith("--no-") else f"--no-{name.removeprefix('--')}"
    )


def _value(value: str | None, tokens: Iterator[str]) -> str | None:
    """The value of an option: what it was joined to, or else the next word."""
    return value if value is not None else next(tokens, None)


def _canonical_words(command: Sequence[str], words: Words) -> list[str]:
    known = {**words.nouns, **words.verbs}
    spelled = [known.get(word, word) for word in command]
    if len(spelled) == 2 and spelled[0] == "list":
        spelled[1] = words.plurals.get(spelled[1], spelled[1])
    return spelled
