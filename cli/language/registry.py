"""Commands are registered once, as a verb and a noun, and offered in both orders.

A module of `cli.commands` registers its commands when it is imported, and it is imported when one of them is
asked for: which module holds which command stands in the index. A command that the index lacks is still
found, by importing everything.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import typer

import cli.commands
from cli.commands import INDEX
from cli.connection.session import Session
from cli.language.argv import GLOBAL, Line, Options, Words, read, spoken
from cli.language.options import Fields, Flag, Kind
from cli.resources import RESOURCES

VERB_ALIASES = {"ls": "list", "rm": "delete", "remove": "delete", "describe": "get", "show": "get"}


@dataclass(frozen=True)
class Command:
    """One command. Its function takes the session, its own parameters, and `fields` when it has flags.

    A parameter called `quiet` gets the global switch of that name.
    """

    verb: str
    noun: str  # "" for a command of one word
    run: Callable[..., None]
    flags: tuple[Flag, ...]
    alone: bool  # also callable as `VERB …`, without the noun
    help: str
    example: str  # one command line that runs as it stands, given such resources
    see_also: tuple[str, ...]  # other commands, without `firectl`

    @property
    def words(self) -> tuple[str, ...]:
        """The command as one usually types it."""
        if self.alone or not self.noun:
            return (self.verb,)
        return (self.verb, plural(self.noun) if self.verb == "list" else self.noun)


class Place(NamedTuple):
    """One line of the index: a command, and the module that registers it."""

    verb: str
    noun: str
    alone: bool
    module: str


_REGISTERED: dict[tuple[str, str], Command] = {}


def command(
    verb: str,
    noun: str = "",
    *,
    flags: Sequence[Flag] = (),
    alone: bool = False,
    help: str = "",
    example: str = "",
    see_also: Sequence[str] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as `VERB NOUN` and `NOUN VERB`."""

    def register(run: Callable[..., None]) -> Callable[..., None]:
        text = help or inspect.getdoc(run) or ""
        _REGISTERED[verb, noun] = Command(
            verb, noun, run, tuple(flags), alone, text, example, tuple(see_also)
        )
        return run

    return register


@cache
def index() -> dict[tuple[str, str], Place]:
    """Every command that is known without importing it."""
    places = [_place(line, module) for module, lines in INDEX.items() for line in lines]
    return {(place.verb, place.noun): place for place in places}


def _place(line: str, module: str) -> Place:
    verb, _, noun = line.partition(" ")
    return Place(verb, noun.strip("[]"), noun.startswith("["), module)


def places() -> list[Place]:
    """Every command that is known now: those of the index, and others that happen to be imported."""
    others = [
        Place(entry.verb, entry.noun, entry.alone, "")
        for key, entry in _REGISTERED.items()
        if key not in index()
    ]
    return [*index().values(), *others]


def find(verb: str, noun: str = "") -> Command | None:
    """The command, imported when it must be."""
    place = index().get((verb, noun))
    if place is not None and (verb, noun) not in _REGISTERED:
        import_module(f"cli.commands.{place.module}")
    return _REGISTERED.get((verb, noun))


def find_by_words(words: Sequence[str]) -> Command | None:
    """The command that one or two words name, in either order and in their canonical spelling."""
    if len(words) == 2:
        first, second = (_singular(word) for word in words)
        return find(first, second) or find(second, first)
    named = [place for place in places() if place.verb == words[0] and (place.alone or not place.noun)]
    return find(named[0].verb, named[0].noun) if named else None


def import_all() -> None:
    """Imports every module of commands."""
    for module in iter_modules(cli.commands.__path__):
        import_module(f"cli.commands.{module.name}")


def all_commands() -> list[Command]:
    """Every command, in the order of the index."""
    import_all()
    order = {key: number for number, key in enumerate(index())}
    return sorted(_REGISTERED.values(), key=lambda entry: order.get((entry.verb, entry.noun), len(order)))


def understood(argv: Sequence[str]) -> Line:
    """A command line in order, read with the options of the command that it names."""
    named = spoken(argv, words(), GLOBAL)
    entry = find_by_words(named) if named else None
    if entry is None and named != ():
        import_all()
        every = GLOBAL | options_of(*_REGISTERED.values())
        entry = find_by_words(spoken(argv, words(), every, guess=True) or ("",))
        return read(argv, words(), GLOBAL | options_of(entry) if entry else every)
    return read(argv, words(), GLOBAL | options_of(entry) if entry else GLOBAL)


def words() -> Words:
    """Every word that a command may be made of."""
    known = places()
    nouns = {place.noun for place in known if place.noun}
    verbs = {place.verb: place.verb for place in known if place.noun}
    return Words(
        verbs={**verbs, **{alias: of for alias, of in VERB_ALIASES.items() if of in verbs}},
        nouns={spelling: noun for noun in nouns for spelling in spellings(noun)},
        alone=frozenset(place.verb for place in known if place.alone or not place.noun),
        plurals={noun: plural(noun) for noun in nouns},
    )


def spellings(noun: str) -> list[str]:
    """A noun in the singular and the plural, and its short names."""
    kind = RESOURCES.get(noun)
    aliases = kind.aliases if kind else ()
    return [noun, plural(noun), *aliases, *(f"{alias}s" for alias in aliases)]


def plural(noun: str) -> str:
    kind = RESOURCES.get(noun)
    return kind.plural if kind else noun


def _singular(word: str) -> str:
    return next((noun for noun, kind in RESOURCES.items() if kind.plural == word), word)


def own_parameters(entry: Command) -> list[inspect.Parameter]:
    """The parameters of the command's function that come from the command line after its words.

    The session, the fields and `quiet`, the global switch, are handed in otherwise.
    """
    parameters = inspect.signature(entry.run).parameters.values()
    return [p for p in parameters if p.annotation not in (Session, Fields) and p.name != "quiet"]


def options_of(*entries: Command) -> Options:
    """The names of the options of these commands."""
    names = [option for entry in entries for option in option_names(entry)]
    return Options(
        values=frozenset(name for name, switch in names if not switch),
        switches=frozenset(name for name, switch in names if switch),
    )


def option_names(entry: Command) -> list[tuple[str, bool]]:
    """(name, whether it is a switch) of each option of a command."""
    names = [
        (name, flag.kind is Kind.SWITCH) for flag in entry.flags for name in (f"--{flag.name}", *flag.also)
    ]
    for parameter in own_parameters(entry):
        if get_origin(parameter.annotation) is not Annotated:
            continue
        kind, option = get_args(parameter.annotation)[:2]
        if type(option) is type(typer.Option()):
            names += [(name, kind in (bool, bool | None)) for name in _declared(parameter, option)]
    return names


def _declared(parameter: inspect.Parameter, option: Any) -> list[str]:
    """The names that an option declares, or the one that Typer makes of the parameter's."""
    given = [option.default, *(option.param_decls or ())]
    named = [str(name).partition("/")[0] for name in given if str(name).startswith("-")]
    return named or [f"--{parameter.name.replace('_', '-')}"]
