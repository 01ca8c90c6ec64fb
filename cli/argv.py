"""Command lines the Go way, turned into the order that the command tree expects.

firectl lets global flags stand anywhere, takes `--flag=true` and `--flag=false` for switches, and knows nouns
in the singular and the plural. Here a command line is read once, with the table of all option names, and put
into one canonical order: global flags, command words, the rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_TRUE = frozenset({"true", "t", "1", "TRUE", "True", "T"})
_FALSE = frozenset({"false", "f", "0", "FALSE", "False", "F"})


@dataclass(frozen=True)
class Vocabulary:
    """The words and option names of all commands."""

    global_values: frozenset[str]
    global_switches: frozenset[str]
    values: frozenset[str]
    switches: frozenset[str]
    verbs: Mapping[str, str]  # every spelling of a verb -> the verb
    nouns: Mapping[str, str]  # every spelling of a noun -> the noun in the singular
    alone: frozenset[str] = frozenset()  # verbs that take no noun: `deploy MODEL`
    plurals: Mapping[str, str] = field(default_factory=dict)  # the noun -> its plural, for `list`


def canonical(argv: Sequence[str], words: Vocabulary) -> list[str]:
    """The same command line as: global flags, command words, everything else in its order."""
    before: list[str] = []
    rest: list[str] = []
    word_places: list[int] = []  # where the positional words stand in `rest`
    tokens = iter(argv)
    for token in tokens:
        if token == "--":
            rest += ["--", *tokens]
        elif not (token.startswith("-") and len(token) > 1):
            word_places.append(len(rest))
            rest.append(token)
        else:
            name, value = _split_option(token, words)
            target = before if name in words.global_values | words.global_switches else rest
            if name in words.global_switches | words.switches:
                target += _switch(name, value)
            elif name in words.global_values | words.values:
                target += [name, *([value] if value is not None else _next(tokens))]
            else:
                target.append(token)
    return [*before, *_with_command_first(rest, word_places, words)]


def _with_command_first(rest: list[str], word_places: Sequence[int], words: Vocabulary) -> list[str]:
    """Moves the command's one or two words to the front, in their canonical spelling."""
    places = list(word_places[:2])
    if len(places) == 2 and not _completes(rest[places[0]], rest[places[1]], words):
        places.pop()
    command = [rest[place] for place in places]
    others = [token for place, token in enumerate(rest) if place not in places]
    return [*_canonical_words(command, words), *others]


def _completes(first: str, second: str, words: Vocabulary) -> bool:
    """Whether the second word belongs to the command: it does in `model create`, not in `deploy model`."""
    if first in words.nouns:
        return second in words.verbs
    return first in words.verbs and first not in words.alone and second in words.nouns


def _split_option(token: str, words: Vocabulary) -> tuple[str, str | None]:
    """`--name=value`, `-o json`, `-ojson` and `-o=json` as (name, value or None)."""
    if token.startswith("--"):
        name, equals, value = token.partition("=")
        return name, value if equals else None
    name, value = token[:2], token[2:]
    if not value or name not in words.global_values | words.values | words.global_switches | words.switches:
        return token, None
    return name, value.removeprefix("=")


def _switch(name: str, value: str | None) -> Iterable[str]:
    if value is None or value in _TRUE:
        return [name]
    if value in _FALSE:
        return [f"--no-{name.removeprefix('--')}"] if name.startswith("--") else []
    return [f"{name}={value}"]  # left as it stands: the parser says that a switch takes no value


def _next(tokens: Iterable[str]) -> list[str]:
    for token in tokens:
        return [token]
    return []


def _canonical_words(command: Sequence[str], words: Vocabulary) -> list[str]:
    known = {**words.nouns, **words.verbs}
    spelled = [known.get(word, word) for word in command]
    if len(spelled) == 2 and spelled[0] == "list":
        spelled[1] = words.plurals.get(spelled[1], spelled[1])
    return spelled
