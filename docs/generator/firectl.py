"""`docs/firectl.md`: every command with the help that `firectl` itself shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli.language import help, tree
from cli.language.help_topics import TOPICS, Topic
from cli.language.registry import VERB_ALIASES, Command, all_commands, find_by_words, spellings, understood
from cli.resources import RESOURCES
from docs.generator.markdown import anchor, code, link, listed, page, prose, table

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

COMPLETION = prose("""
`firectl completion` prints a script for bash, zsh or fish that completes commands, flags, their values and
the ids of resources; its help says where to put it.
""")


def firectl_page() -> str:
    nouns = _nouns()
    return page(
        "firectl",
        INTRODUCTION,
        "## Global flags",
        "They may stand anywhere in a command line.",
        _parameters(tree.root_params()),
        CONNECTION,
        COMPLETION,
        "## Other spellings",
        table(("word", "also"), _spellings()),
        "## All commands",
        table(("resource", "commands"), [*(_overview(noun) for noun in nouns), _overview("")]),
        *(block for noun in nouns for block in _resource(noun)),
        f"## {WITHOUT_NOUN}",
        *(block for entry in _commands("") for block in _command(entry)),
        "## Topics",
        "`firectl help TOPIC` prints these.",
        *(block for topic in TOPICS.values() for block in _topic(topic)),
    )


def command_words(entry: Command) -> list[list[str]]:
    """The orders in which a command can be typed, the usual one first."""
    usual = list(entry.words)
    return [usual, [entry.noun, entry.verb]] if entry.noun else [usual]


def find_command(root: Any, words: list[str]) -> Any:
    """What these words run; `logs` takes a noun as its first argument."""
    for word in words:
        if not isinstance(root, tree.Leaf):
            root = root.get_command(None, word)
    return root


def _nouns() -> list[str]:
    """Those of the table of resources in its order, then others."""
    used = dict.fromkeys(entry.noun for entry in all_commands() if entry.noun)
    return [noun for noun in RESOURCES if noun in used] + [noun for noun in used if noun not in RESOURCES]


def _spellings() -> list[tuple[str, str]]:
    verbs = [
        (code(verb), listed(alias for alias, of in VERB_ALIASES.items() if of == verb))
        for verb in dict.fromkeys(VERB_ALIASES.values())
    ]
    shorter = {noun: [each for each in spellings(noun)[2:] if each] for noun in _nouns()}
    return verbs + [(code(noun), listed(found)) for noun, found in shorter.items() if found]


def _overview(noun: str) -> tuple[str, str]:
    return link(_heading(noun)), listed(" ".join(entry.words) for entry in _commands(noun))


def _heading(noun: str) -> str:
    if not noun:
        return WITHOUT_NOUN
    words = RESOURCES[noun].plural_words if noun in RESOURCES else noun.replace("-", " ")
    return words[0].upper() + words[1:]


def _resource(noun: str) -> list[str]:
    blocks = [block for entry in _commands(noun) for block in _command(entry)]
    return [f"## {_heading(noun)}", *blocks]


def _commands(noun: str) -> list[Command]:
    def place(entry: Command) -> int:
        if entry.verb in FIRST_VERBS:
            return FIRST_VERBS.index(entry.verb) - len(FIRST_VERBS)
        return LAST_VERBS.index(entry.verb) + 1 if entry.verb in LAST_VERBS else 0

    return sorted((entry for entry in all_commands() if entry.noun == noun), key=place)


def _command(entry: Command) -> list[str]:
    leaf: Any = tree.leaf(entry, entry.verb)
    params = [param for param in leaf.params if not param.hidden]
    shown = " ".join(help.shown_argument(param) for param in params if param.param_type_name == "argument")
    orders = [code(f"firectl {' '.join(words)} {shown}".strip()) for words in command_words(entry)]
    return [
        f"### {' '.join(entry.words)}",
        " or ".join(orders),
        _explained(entry.help),
        _parameters(params),
        f"```console\n$ {entry.example}\n```",
        f"See also: {', '.join(_linked(other) for other in entry.see_also)}.",
    ]


def _linked(other: str) -> str:
    found = find_by_words(understood(other.split()).command)
    assert found is not None, other
    return f"[{code(f'firectl {other}')}](#{anchor(' '.join(found.words))})"


def _parameters(params: Sequence[Any]) -> str:
    """The arguments, and the flags by their groups."""
    arguments = [
        (help.argument_name(p), help.explained(p)) for p in params if p.param_type_name == "argument"
    ]
    flags = [p for p in params if p.param_type_name == "option" and not p.hidden]
    rows = [(code(name), text) for name, text in arguments]
    for title, found in help.flag_groups(flags):
        rows += [] if title == "Flags" else [(f"**{title}**", "")]
        rows += [(code(name), text) for name, text in found]
    return table(("argument or flag", "what it is"), rows)


def _explained(text: str) -> str:
    """Running text as it is, and what is indented as code."""
    return "\n\n".join(
        f"```text\n{_dedented(part)}\n```" if part.startswith(" ") else part for part in text.split("\n\n")
    )


def _topic(topic: Topic) -> list[str]:
    return [
        f"### {topic.name}",
        f"{topic.title[:1].upper()}{topic.title[1:]}.",
        _explained(topic.text.strip("\n")),
    ]


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("  ") for line in text.splitlines())
