"""Command lines that cannot be understood: what is wrong, and what was probably meant."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from typer.exceptions import TyperException

from cli.errors import CliError, UsageError
from cli.language import help, registry
from cli.language.argv import GLOBAL, Line, Words

_NEAR = 0.6  # how alike two words must be
_AS_NEAR = 0.05  # what is less alike than the best by more than this is not meant


def check(line: Line) -> None:
    """Raises for words that name no command, and for an option without its value."""
    words = registry.words()
    if len(line.command) == 2:
        if registry.find_by_words(line.command) is None:
            raise _no_such_pair(line.command)
    elif line.command and line.command[0] not in words.alone:
        first = line.command[0]
        known = first in words.verbs or first in words.nouns
        if not known or len(line.positional) > 1:
            from cli.language import refused_commands

            refused_commands.check(line.positional)
            raise _unknown(line.positional[:2], first_known=known)
    if line.dangling:
        path = " ".join(["firectl", *line.command])
        raise UsageError(f"flag needs an argument: {line.dangling}", advice=[f"{path} --help"])


def of_parser(error: TyperException, argv: Sequence[str]) -> CliError:
    """The same for what the parser found."""
    context: Any = getattr(error, "ctx", None)
    entry = getattr(context.command, "entry", None) if context is not None else None
    advice = [f"{context.command_path if context is not None else _path(argv)} --help"]
    if entry is not None and entry.example:
        advice.insert(0, f"for example: {entry.example}")
    message = _message(error, argv, context)
    return UsageError(message, advice=advice)


def _path(argv: Sequence[str]) -> str:
    return " ".join(["firectl", *registry.understood(argv).command])


def _message(error: Any, argv: Sequence[str], context: Any) -> str:
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return _unknown_flag(error.option_name, argv, context)
    if kind == "MissingParameter" and error.param is not None:
        return _missing(error.param)
    if kind == "BadParameter" and error.param is not None:
        return _bad_value(error)
    if kind == "BadOptionUsage" and "does not take a value" in str(error.message):
        return f"invalid value for {error.option_name}: it is true or false"
    if "unexpected extra argument" in str(error.message):
        return _too_many(str(error.message), context)
    return str(error.format_message())


def _unknown(typed: Sequence[str], *, first_known: bool) -> UsageError:
    text = " ".join(typed)
    near = _near_commands(typed)
    return UsageError(f'unknown command "{text}"{_meant(near)}', advice=_ways_on(typed[0], near, first_known))


def _ways_on(first: str, near: Sequence[str], first_known: bool) -> list[str]:
    if near:
        return [f"firectl {near[0]} --help"]
    return [f"firectl {first} --help"] if first_known else ["firectl --help lists all commands"]


def _no_such_pair(command: Sequence[str]) -> UsageError:
    """A verb and a noun that exist, but not together."""
    words = registry.words()
    noun = next(words.nouns[word] for word in command if word in words.nouns)
    verb = next(words.verbs[word] for word in command if word in words.verbs)
    has = sorted(place.verb for place in registry.places() if place.noun == noun)
    takes = sorted(place.noun for place in registry.places() if place.verb == verb)
    return UsageError(
        f'there is no command "{" ".join(command)}"',
        details=[f"{noun} has: {', '.join(has)}", f"{verb} is for: {', '.join(takes)}"],
        advice=[f"firectl {noun} --help"],
    )


def _near_commands(typed: Sequence[str]) -> list[str]:
    """Commands that look like the typed words: both orders, every spelling, and only the nearest."""
    words = registry.words()
    typed = _apart(typed[0], words) or typed
    near: dict[tuple[str, ...], float] = {}
    if typed[0] not in words.verbs and typed[0] not in words.nouns:
        near.update({(verb,): score for verb, score in _near(typed[0], {v: v for v in words.alone}).items()})
    if len(typed) > 1:
        firsts, seconds = (_near(text, {**words.verbs, **words.nouns}) for text in typed[:2])
        near.update({(a, b): (firsts[a] + seconds[b]) / 2 for a in firsts for b in seconds})
    found = {pair: entry for pair in near if (entry := registry.find_by_words(pair)) is not None}
    best = max((near[pair] for pair in found), default=0.0)
    ranked = sorted((pair for pair in found if near[pair] > best - _AS_NEAR), key=lambda pair: -near[pair])
    return [*dict.fromkeys(" ".join(found[pair].words) for pair in ranked)][:2]


def _apart(word: str, words: Words) -> list[str]:
    """`list-models` as two words; nothing for what does not begin with a verb."""
    verb, _, noun = word.replace("_", "-").partition("-")
    return [verb, noun] if noun and verb in words.verbs else []


def _near(word: str, known: Mapping[str, str]) -> dict[str, float]:
    """What the spellings that look like a word stand for, and how alike they are."""
    alike: dict[str, float] = {}
    for spelling, meant in known.items():
        score = difflib.SequenceMatcher(None, word.lower(), spelling).ratio()
        if score >= _NEAR:
            alike[meant] = max(score, alike.get(meant, 0.0))
    return alike


def _meant(near: Sequence[str]) -> str:
    quoted = " or ".join(f'"{text}"' for text in near)
    return f"; did you mean {quoted}?" if near else ""


def _unknown_flag(name: str, argv: Sequence[str], context: Any) -> str:
    token = next((t for t in argv if t.startswith("-") and not t.startswith("--") and name[1:] in t[1:]), "")
    if not name.startswith("--"):
        hint = f"; did you mean -{token}?" if f"-{token}" in _flags_of(context) else ""
        return f"unknown shorthand flag: '{name[1:]}' in {token or name}{hint}"
    near = difflib.get_close_matches(name, _flags_of(context), n=2)
    return f"unknown flag: {name}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def _flags_of(context: Any) -> list[str]:
    own = [] if context is None else [name for param in context.command.params for name in param.opts]
    return [name for name in (*own, *GLOBAL.values, *GLOBAL.switches, "--help") if name.startswith("--")]


def _missing(param: Any) -> str:
    what = (param.help or "").strip()
    if param.param_type_name == "argument":
        return f"{help.argument_name(param)} is missing" + (f": {_lower(what)}" if what else "")
    return f"{param.opts[0]} is missing" + (f": {_lower(what)}" if what else "")


def _bad_value(error: Any) -> str:
    param = error.param
    name = param.opts[0] if param.param_type_name == "option" else help.argument_name(param)
    return f"invalid value for {name}: {error.message}"


def _too_many(message: str, context: Any) -> str:
    extra = message.rpartition("(")[2].removesuffix(")")
    params = [p for p in context.command.params if p.param_type_name == "argument" and not p.hidden]
    taken = [help.argument_name(param) for param in params]
    takes = " ".join(taken) if taken else "no arguments"
    hint = "; a switch takes its value after =, as in --name=false" if extra in ("true", "false") else ""
    return f'unexpected "{extra}": {context.command_path} takes {takes}{hint}'


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
