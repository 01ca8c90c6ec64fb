"""`docs/firectl.md`: every command with the help that `firectl` itself shows."""

from __future__ import annotations

from typing import Any

import typer

from cli.main import app
from cli.registry import COMMANDS, VERB_ALIASES, Command
from cli.resources import RESOURCES, Resource
from docs.generator.markdown import code, link, listed, page, prose, table

WITHOUT_NOUN = "Without a noun"
# What one does first stands first; other verbs follow in the order of the code, and deleting comes last.
FIRST_VERBS = ("create", "get", "list", "update")
LAST_VERBS = ("delete", "undelete")

INTRODUCTION = prose("""
`firectl` works on the resources of one account of one server. Commands read verb first or noun first,
and nouns may stand in the singular or the plural. `firectl COMMAND --help` shows what stands here.

A flag's value may follow a space or `=`. A switch takes `--name`, `--no-name`, `--name=true` or
`--name=false`. A DURATION is written as in `30s`, `10m` or `1h30m`. NAME=VALUE and A,B may be given
several times or joined by commas.
""")

CONNECTION = prose("""
The address, the key and the account come from a flag, else from `FIREWORKS_BASE_URL`,
`FIREWORKS_API_KEY` and `FIREWORKS_ACCOUNT_ID`, else from `~/.fireworks/auth.ini`, which `firectl
set-api-key` writes. With `--profile` that profile of the file wins over the environment. Without an
account, the key's own is used.
""")


def firectl_page() -> str:
    root: Any = typer.main.get_command(app)
    nouns = [noun for noun in RESOURCES if any(entry.noun == noun for entry in COMMANDS)]
    return page(
        "firectl",
        INTRODUCTION,
        "## Global flags",
        "They may stand anywhere in a command line.",
        _parameters(root, root.params),
        CONNECTION,
        "## Other spellings",
        table(("word", "also"), _spellings()),
        "## All commands",
        table(("resource", "commands"), [*(_overview(noun) for noun in nouns), _overview("")]),
        *(block for noun in nouns for block in _resource(root, RESOURCES[noun])),
        f"## {WITHOUT_NOUN}",
        *(block for entry in _commands("") for block in _command(root, entry)),
    )


def command_words(entry: Command) -> list[list[str]]:
    """The orders in which a command can be typed, the usual one first."""
    if not entry.noun:
        return [[entry.verb]]
    if entry.alone:
        return [[entry.verb], [entry.noun, entry.verb]]
    noun = RESOURCES[entry.noun].plural if entry.verb == "list" else entry.noun
    return [[entry.verb, noun], [entry.noun, entry.verb]]


def find_command(root: Any, words: list[str]) -> Any:
    for word in words:
        root = root.commands[word]
    return root


def _spellings() -> list[tuple[str, str]]:
    verbs = [
        (code(verb), listed(alias for alias, of in VERB_ALIASES.items() if of == verb))
        for verb in dict.fromkeys(VERB_ALIASES.values())
    ]
    nouns = [(code(kind.noun), listed(kind.aliases)) for kind in RESOURCES.values() if kind.aliases]
    return verbs + nouns


def _overview(noun: str) -> tuple[str, str]:
    words = [" ".join(command_words(entry)[0]) for entry in _commands(noun)]
    return link(_heading(noun)), listed(words)


def _heading(noun: str) -> str:
    if not noun:
        return WITHOUT_NOUN
    words = RESOURCES[noun].plural_words
    return words[0].upper() + words[1:]


def _resource(root: Any, kind: Resource) -> list[str]:
    blocks = [block for entry in _commands(kind.noun) for block in _command(root, entry)]
    return [f"## {_heading(kind.noun)}", *blocks]


def _commands(noun: str) -> list[Command]:
    def place(entry: Command) -> int:
        if entry.verb in FIRST_VERBS:
            return FIRST_VERBS.index(entry.verb) - len(FIRST_VERBS)
        return LAST_VERBS.index(entry.verb) + 1 if entry.verb in LAST_VERBS else 0

    return sorted((entry for entry in COMMANDS if entry.noun == noun), key=place)


def _command(root: Any, entry: Command) -> list[str]:
    first, *others = command_words(entry)
    command = find_command(root, first)
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    shown = " ".join(_shown(arguments))
    orders = [code(f"firectl {' '.join(words)} {shown}".strip()) for words in (first, *others)]
    return [
        f"### {' '.join(first)}",
        " or ".join(orders),
        entry.help,
        _parameters(command, [*arguments, *options]),
    ]


def _parameters(command: Any, parameters: list[Any]) -> str:
    context = typer.Context(command)
    records = [parameter.get_help_record(context) for parameter in parameters]
    # What stands in brackets may be left out, whatever the parser calls it.
    rows = [
        (code(names), text.replace("[required]", "") if names.startswith("[") else text)
        for names, text in records
    ]
    return table(("argument or flag", "what it is"), rows)


def _shown(arguments: list[Any]) -> list[str]:
    """The arguments as they are typed, in brackets where they may be left out.

    A command whose help has brackets of its own knows better which of its arguments may be left out.
    """
    names = [argument.metavar or argument.name.upper() for argument in arguments]
    if any(name.startswith("[") for name in names):
        return names
    return [
        name if argument.required else f"[{name}]" for name, argument in zip(names, arguments, strict=True)
    ]
