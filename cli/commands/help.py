"""Help for a command or a topic, by name."""

import difflib
from typing import Annotated

import typer

from cli.connection.session import Session
from cli.errors import UsageError
from cli.language import help, registry, tree
from cli.language.help_topics import TOPICS, Topic
from cli.language.registry import command

_TOPIC_WORDS = frozenset({"topic", "topics"})


@command("help", example="firectl help filters", see_also=("version", "whoami"))
def show_help(
    session: Session,
    about: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND|TOPIC]", help="A command, or a topic; `topics` lists those.", show_default=False
        ),
    ] = None,
) -> None:
    """Explain a command or a topic."""
    session.output.stdout.write(_help_on(list(about or [])))


def _help_on(words: list[str]) -> str:
    columns = help.width()
    if not words:
        return help.of_firectl(tree.root_params(), columns)
    topic = _topic([word for word in words if word not in _TOPIC_WORDS] or words)
    if topic is not None:
        return help.of_topic(topic, columns)
    if words[0] in _TOPIC_WORDS and len(words) == 1:
        return help.of_topics(columns)
    return _help_on_command(words, columns)


def _topic(words: list[str]) -> Topic | None:
    """`filters`, `filter` and `settings files` are all found."""
    name = "-".join(words)
    return TOPICS.get(name) or TOPICS.get(f"{name}s")


def _help_on_command(words: list[str], columns: int) -> str:
    named = registry.understood(words).command
    entry = registry.find_by_words(named)
    if entry is not None:
        made = tree.leaf(entry, named[-1])
        return help.of_command(entry, made.params, f"firectl {' '.join(named)}", columns)
    if len(named) == 1 and len(words) == 1 and tree.second_words(named[0]):
        return help.of_word(named[0], tree.second_words(named[0]), columns)
    raise _unknown(words)


def _unknown(words: list[str]) -> UsageError:
    text = " ".join(words)
    commands = [" ".join(entry.words) for entry in registry.all_commands()]
    near = difflib.get_close_matches(text, [*TOPICS, *commands, *tree.first_words()], n=2, cutoff=0.75)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return UsageError(
        f'there is no command and no topic "{text}"{meant}',
        advice=["firectl --help lists the commands", "firectl help topics lists the topics"],
    )
