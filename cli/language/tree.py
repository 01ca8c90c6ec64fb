"""The command tree that Typer walks, grown only where a command line leads."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from cli.errors import UsageError
from cli.language import registry
from cli.language.options import Flag, Kind, fields_from_flags
from cli.language.registry import Command
from cli.language.values import QuickParams

SETTINGS = {"help_option_names": ["-h", "--help"]}
_ANNOTATIONS: dict[Kind, Any] = {
    Kind.INTEGER: int | None,
    Kind.NUMBER: float | None,
    Kind.SWITCH: bool | None,
    Kind.PAIRS: list[str] | None,
    Kind.WORDS: list[str] | None,
}
_METAVARS = {
    Kind.TEXT: "TEXT",
    Kind.INTEGER: "N",
    Kind.NUMBER: "NUMBER",
    Kind.DURATION: "DURATION",
    Kind.PAIRS: "NAME=VALUE",
    Kind.WORDS: "A,B",
    Kind.ACCELERATOR: "TYPE",
}


class Leaf(QuickParams, TyperCommand):
    """One command, which explains itself in our own layout."""

    entry: Command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from cli.language import help

        formatter.write(help.of_command(self.entry, self.params, ctx.command_path, help.width()))


class Branch(QuickParams, TyperGroup):
    """Every command that begins with one verb or one noun."""

    word: str

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(second_words(self.word))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = registry.find_by_words((self.word, cmd_name))
        return leaf(entry, cmd_name) if entry else None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            args = ["--help"]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from cli.language import help

        formatter.write(help.of_word(self.word, second_words(self.word), help.width()))


def root_params() -> list[Any]:
    """The global flags."""
    from cli.main import app

    root: Any = typer.main.get_command(app)
    return list(root.params)


def first_words() -> list[str]:
    """Every word that a command line may begin with, in its canonical spelling."""
    known = registry.words()
    return sorted({*known.alone, *known.verbs.values(), *known.nouns.values()})


def second_words(word: str) -> list[str]:
    """What may follow a verb or a noun."""
    places = [place for place in registry.places() if place.noun]
    nouns = [place.noun for place in places if place.verb == word and not place.alone]
    verbs = [place.verb for place in places if place.noun == word]
    return [registry.plural(noun) if word == "list" else noun for noun in nouns] + verbs


def branch_or_leaf(word: str) -> Any:
    """What stands under the first word of a command line; None when nothing does."""
    entry = registry.find_by_words((word,))
    if entry is not None:
        return leaf(entry, word)
    if not second_words(word):
        return None
    branch = Branch(name=word, rich_markup_mode=None, context_settings=dict(SETTINGS))
    branch.word = word
    return branch


@cache
def leaf(entry: Command, name: str) -> Leaf:
    """The Typer command of a registered one."""
    shell = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    shell.command(name, cls=Leaf, help=entry.help, context_settings=dict(SETTINGS))(_callback(entry))
    made: Any = typer.main.get_command(shell)
    made.entry = entry
    return made  # type: ignore[no-any-return]


def _callback(entry: Command) -> Callable[..., None]:
    """The function that Typer sees: the command's own parameters and one for each flag."""
    takes_quiet = "quiet" in inspect.signature(entry.run).parameters

    def call(ctx: typer.Context, **values: Any) -> None:
        own = {key: value for key, value in values.items() if not key.startswith("flag_")}
        try:
            if entry.flags:
                own["fields"] = fields_from_flags(entry.flags, values)
            if takes_quiet:
                own["quiet"] = ctx.obj.output.quiet
            entry.run(ctx.obj, **own)
        except UsageError as error:
            error.advice = error.advice or [f"{ctx.command_path} --help"]
            raise

    parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in registry.own_parameters(entry)]
    parameters += [_flag_parameter(flag) for flag in entry.flags]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {}
    call.__name__ = f"{entry.verb}_{entry.noun}".replace("-", "_")
    return call


def _flag_parameter(flag: Flag) -> inspect.Parameter:
    names = [f"--{flag.name}", *flag.also]
    if flag.kind is Kind.SWITCH:
        names[0] = f"--{flag.name}/--no-{flag.name}"
    option = typer.Option(
        *names,
        help=flag.help,
        metavar="|".join(flag.choices) or _METAVARS.get(flag.kind),
        show_default=False,
        rich_help_panel=flag.group or None,
    )
    annotation = Annotated[_ANNOTATIONS.get(flag.kind, str | None), option]  # type: ignore[valid-type]
    return inspect.Parameter(
        flag.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
