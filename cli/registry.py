"""Commands are registered once, as a verb and a noun, and offered in both orders."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin

import typer

from cli.argv import Vocabulary
from cli.options import Fields, Flag, Kind, fields_from_flags
from cli.resources import RESOURCES
from cli.session import Session

VERB_ALIASES = {"ls": "list", "rm": "delete", "remove": "delete", "describe": "get"}
_VERB_HELP = {
    "create": "Create a resource.",
    "get": "Show one resource.",
    "list": "List resources.",
    "update": "Change a resource.",
    "delete": "Delete a resource.",
    "upload": "Upload the files of a resource that exists.",
    "validate": "Have the server check uploaded files again.",
    "download": "Download the files of a resource.",
    "scale": "Set the number of replicas.",
    "undelete": "Bring back a deleted resource.",
}
_EPILOG = "Global flags (-a, -o, --dry-run, --api-key, ...) go anywhere: firectl --help lists them."
_SETTINGS = {"help_option_names": ["-h", "--help"]}
_ANNOTATIONS: dict[Kind, Any] = {
    Kind.INTEGER: int | None,
    Kind.NUMBER: float | None,
    Kind.SWITCH: bool | None,
    Kind.PAIRS: list[str] | None,
    Kind.WORDS: list[str] | None,
}
_METAVARS = {Kind.DURATION: "DURATION", Kind.PAIRS: "NAME=VALUE", Kind.WORDS: "A,B"}


@dataclass(frozen=True)
class Command:
    """One command. Its function takes the session, its own parameters, and `fields` when it has flags."""

    verb: str
    noun: str  # "" for a command of one word
    run: Callable[..., None]
    flags: tuple[Flag, ...]
    alone: bool  # also callable as `VERB …`, without the noun
    help: str


COMMANDS: list[Command] = []


def command(
    verb: str, noun: str = "", *, flags: Sequence[Flag] = (), alone: bool = False, help: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as `VERB NOUN` and `NOUN VERB`."""

    def register(run: Callable[..., None]) -> Callable[..., None]:
        text = help or inspect.getdoc(run) or ""
        COMMANDS.append(Command(verb, noun, run, tuple(flags), alone, text))
        return run

    return register


def add_commands(app: typer.Typer) -> None:
    """Builds the command tree: verbs first, then nouns."""
    groups: dict[str, typer.Typer] = {}
    for entry in COMMANDS:
        callback = _callback(entry)
        if not entry.noun or entry.alone:
            _add(app, entry.verb, entry, callback)
        if entry.noun and not entry.alone:
            noun = RESOURCES[entry.noun].plural if entry.verb == "list" else entry.noun
            _add(_group(app, groups, entry.verb), noun, entry, callback)
    for entry in COMMANDS:
        if entry.noun:
            _add(_group(app, groups, entry.noun), entry.verb, entry, _callback(entry))


def _group(app: typer.Typer, groups: dict[str, typer.Typer], name: str) -> typer.Typer:
    if name not in groups:
        text = _VERB_HELP.get(name) or f"Everything about {RESOURCES[name].plural_words}."
        groups[name] = typer.Typer(help=text, no_args_is_help=True, context_settings=_SETTINGS)
        app.add_typer(groups[name], name=name)
    return groups[name]


def _add(group: typer.Typer, name: str, entry: Command, callback: Callable[..., None]) -> None:
    group.command(name, help=entry.help, epilog=_EPILOG, context_settings=_SETTINGS)(callback)


@cache
def _callback(entry: Command) -> Callable[..., None]:
    """The function that Typer sees: the command's own parameters and one for each flag."""

    def call(ctx: typer.Context, **values: Any) -> None:
        own = {key: value for key, value in values.items() if not key.startswith("flag_")}
        if entry.flags:
            own["fields"] = fields_from_flags(entry.flags, values)
        entry.run(ctx.obj, **own)

    parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own_parameters(entry)]
    parameters += [_flag_parameter(flag) for flag in entry.flags]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {}
    call.__name__ = f"{entry.verb}_{entry.noun}".replace("-", "_")
    return call


def own_parameters(entry: Command) -> list[inspect.Parameter]:
    """The parameters of the command's function that come from the command line."""
    parameters = inspect.signature(entry.run).parameters.values()
    return [p for p in parameters if p.annotation not in (Session, Fields)]


def _flag_parameter(flag: Flag) -> inspect.Parameter:
    names = [f"--{flag.name}", *flag.also]
    if flag.kind is Kind.SWITCH:
        names = [f"--{flag.name}/--no-{flag.name}"]
    option = typer.Option(*names, help=flag.help, metavar=_METAVARS.get(flag.kind), show_default=False)
    annotation = Annotated[_ANNOTATIONS.get(flag.kind, str | None), option]  # type: ignore[valid-type]
    return inspect.Parameter(
        flag.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def vocabulary(global_values: Sequence[str], global_switches: Sequence[str]) -> Vocabulary:
    """All words and option names, for reading a command line."""
    options = [option for entry in COMMANDS for option in option_names(entry)]
    nouns = {spelling: kind.noun for kind in RESOURCES.values() for spelling in _spellings(kind.noun)}
    return Vocabulary(
        global_values=frozenset(global_values),
        global_switches=frozenset(global_switches),
        values=frozenset(name for name, switch in options if not switch),
        switches=frozenset(name for name, switch in options if switch),
        verbs={**{entry.verb: entry.verb for entry in COMMANDS if entry.noun}, **VERB_ALIASES},
        nouns=nouns,
        alone=frozenset(entry.verb for entry in COMMANDS if entry.alone or not entry.noun),
        plurals={kind.noun: kind.plural for kind in RESOURCES.values()},
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
            declared = [option.default, *(option.param_decls or ())]
            shown = [str(name).partition("/")[0] for name in declared if str(name).startswith("-")]
            names += [(name, kind in (bool, bool | None)) for name in shown]
    return names


def _spellings(noun: str) -> list[str]:
    kind = RESOURCES[noun]
    return [noun, kind.plural, *kind.aliases, *(f"{alias}s" for alias in kind.aliases)]
