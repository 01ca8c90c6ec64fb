"""What `--help` shows: laid out by us, for wide and narrow terminals alike."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from cli.language import registry
from cli.language.flags import REFUSED
from cli.language.help_topics import TOPICS, Topic
from cli.language.registry import Command
from cli.resources import RESOURCES

_WIDEST = 100
_NARROW = 70  # below this, explanations stand under what they explain
_TIED = "\N{NO-BREAK SPACE}"
_FILTER_LINE = "firectl help filters explains --filter and --order-by."
_GLOBAL_LINE = "Global flags (-a, -o, -p, --dry-run, --quiet, ...) go anywhere: firectl --help lists them."
_FIRST_VERBS = ("create", "get", "list", "update", "delete")
# Said here too, so that `firectl --help` needs no command's module.
ONE_WORD = {
    "signin": "Sign in with a browser, and keep the tokens",
    "signout": "Forget the sign-in or the key",
    "set-api-key": "Keep an API key for later commands",
    "whoami": "Show the server, the account and the user, and where each came from",
    "chat": "Talk to a model",
    "complete": "Have a model go on with a text",
    "deploy": "Load a model onto a deployment",
    "undeploy": "Take a model off a deployment",
    "load-lora": "Load an adapter onto a deployment",
    "unload-lora": "Take an adapter off a deployment",
    "prepare-model": "Make a model ready to be deployed at a precision",
    "logs": "Show what a job says while it runs",
    "completion": "Print the script that completes commands in a shell",
    "version": "Show the versions of firectl and of the server",
    "upgrade": "Say how to upgrade",
    "help": "Explain a command or a topic",
}
_MORE = (
    ("firectl COMMAND --help", "What a command does, its flags, and an example"),
    ("firectl help topics", "Pages about more than one command"),
)


def width() -> int:
    """The columns that a help text may take."""
    return max(20, min(shutil.get_terminal_size().columns, _WIDEST))


def of_command(entry: Command, params: Sequence[Any], path: str, columns: int) -> str:
    """The help of one command; `path` is how it was typed."""
    arguments = [p for p in params if p.param_type_name == "argument" and not p.hidden]
    flags = [p for p in params if p.param_type_name == "option" and not p.hidden]
    groups = flag_groups(flags)
    usage = " ".join([path, *(shown_argument(p) for p in arguments), *(["[flags]"] if flags else [])])
    blocks = [
        _wrapped(f"Usage: {usage}", columns, hanging="       "),
        paragraphs(entry.help, columns),
        section("Arguments", [(argument_name(p), explained(p)) for p in arguments], columns),
        *(section(title, rows, columns) for title, rows in groups if title != REFUSED),
        *(_refused(rows, columns) for title, rows in groups if title == REFUSED),
        _wrapped(_FILTER_LINE, columns) if any("--filter" in p.opts for p in flags) else "",
        _wrapped(_GLOBAL_LINE, columns),
        f"Example:\n  {entry.example}" if entry.example else "",
        _see_also(entry, columns),
    ]
    return _joined(blocks)


def of_word(word: str, seconds: Sequence[str], columns: int) -> str:
    """The help of a verb or a noun: what may follow it."""
    rows = [(second, summary(registry.find_by_words((word, second)))) for second in seconds]
    kind = RESOURCES.get(word)
    title = f"Everything about {kind.plural_words}." if kind else f"The commands of `{word}`."
    blocks = [
        f"Usage: firectl {word} COMMAND",
        _wrapped(title, columns),
        section("Commands", rows, columns),
        _wrapped(f"firectl {word} COMMAND --help explains one of them.", columns),
    ]
    return _joined(blocks)


def of_firectl(params: Sequence[Any], columns: int) -> str:
    """The help of firectl itself, made without importing any command."""
    flags = [(_names(p), explained(p)) for p in params if p.param_type_name == "option"]
    blocks = [
        _wrapped("Upload, fine-tune, deploy and query models on a Hearth server.", columns),
        "Usage:\n  firectl VERB NOUN [flags]\n  firectl NOUN VERB [flags]",
        section("Verbs, and the nouns that they take", verb_rows(), columns),
        section("Commands of one word", list(ONE_WORD.items()), columns),
        section("Global flags, which may stand anywhere", flags, columns),
        section("More", [*_MORE, ("firectl help TOPIC", ", ".join(TOPICS))], columns),
    ]
    return _joined(blocks)


def verb_rows() -> list[tuple[str, str]]:
    """Each verb with its nouns, the common verbs first."""
    nouns: dict[str, list[str]] = {verb: [] for verb in _FIRST_VERBS}
    for place in registry.places():
        if place.noun and not place.alone:
            nouns.setdefault(place.verb, []).append(place.noun)
    return [(verb, ", ".join(sorted(found))) for verb, found in nouns.items()]


def of_topic(topic: Topic, columns: int) -> str:
    title = _wrapped(f"{topic.name}: {topic.title}", columns)
    return _joined([title, paragraphs(topic.text.strip("\n"), columns)])


def of_topics(columns: int) -> str:
    rows = [(topic.name, topic.title[:1].upper() + topic.title[1:]) for topic in TOPICS.values()]
    return _joined([section("Topics", rows, columns), "firectl help TOPIC prints one."])


def summary(entry: Command | None) -> str:
    """The first sentence of a command's help."""
    text = " ".join(entry.help.partition("\n\n")[0].split()) if entry else ""
    return text.partition(". ")[0].rstrip(".")


def flag_groups(flags: Iterable[Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, rows) of the flags, the general ones first and the refused ones last."""
    groups: dict[str, list[tuple[str, str]]] = {"Flags": []}
    for flag in flags:
        groups.setdefault(flag.rich_help_panel or "Flags", []).append((_names(flag), explained(flag)))
    refused = groups.pop(REFUSED, [])
    return [(title, rows) for title, rows in [*groups.items(), (REFUSED, refused)] if rows]


def argument_name(param: Any) -> str:
    return str(param.metavar or param.name.upper()).strip("[]")


def shown_argument(param: Any) -> str:
    """The argument as it is typed, in brackets where it may be left out."""
    metavar = str(param.metavar or param.name.upper())
    return metavar if param.required or metavar.startswith("[") else f"[{metavar}]"


def section(title: str, rows: Sequence[tuple[str, str]], columns: int) -> str:
    """A heading and its rows: side by side where there is room, else one under the other."""
    if not rows:
        return ""
    if columns < _NARROW:
        lines = [_wrapped(name, columns, "  ", hanging="    ") + _below(text, columns) for name, text in rows]
        return f"{title}:\n" + "\n".join(lines)
    room = min(max(len(name) for name, _ in rows), 36)
    return f"{title}:\n" + "\n".join(_side_by_side(name, text, room, columns) for name, text in rows)


def _side_by_side(name: str, text: str, room: int, columns: int) -> str:
    first = f"  {name:<{room}}  "
    if len(name) > room:
        return f"  {name}{_below(text, columns, indent=room + 4)}"
    return _wrapped(text, columns, first, hanging=" " * (room + 4)) if text else first.rstrip()


def _below(text: str, columns: int, indent: int = 6) -> str:
    space = " " * indent
    return "\n" + _wrapped(text, columns, space, hanging=space) if text else ""


def paragraphs(text: str, columns: int) -> str:
    """Running text, wrapped paragraph by paragraph; of indented ones each line by itself."""
    parts = [part.rstrip() for part in text.split("\n\n")]
    return "\n\n".join(
        "\n".join(_literal(line, columns) for line in part.splitlines())
        if part.startswith(" ")
        else _wrapped(" ".join(part.split()), columns)
        for part in parts
    )


def _literal(line: str, columns: int) -> str:
    """A line that stands as it is, unless it is the row of a table: what is to be typed is never broken."""
    if len(line) <= columns or "  " not in line.strip():
        return line
    return _wrapped(line, columns, hanging=" " * 6)


def _wrapped(text: str, columns: int, first: str = "", *, hanging: str = "") -> str:
    return textwrap.fill(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=hanging,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _names(param: Any) -> str:
    names = sorted(param.opts, key=lambda name: name.startswith("--"))
    shown = ", ".join(names)
    return shown if param.is_flag else f"{shown} {_metavar(param)}"


def _metavar(param: Any) -> str:
    described = param.type_descriptor
    if param.metavar:
        return str(param.metavar)
    if described.choices:
        return "|".join(str(getattr(choice, "value", choice)) for choice in described.choices)
    if described.is_path:
        return "PATH"
    return {int: "N", float: "NUMBER"}.get(described.annotation, "TEXT")


def explained(param: Any) -> str:
    """What an argument or a flag is, and its value when it is left out."""
    text = " ".join((param.help or "").split())
    default = param.default
    if default is None or isinstance(default, bool) or not param.show_default:
        return text
    return f"{text} Default: {getattr(default, 'value', default)}."


def _refused(rows: Sequence[tuple[str, str]], columns: int) -> str:
    """Flags that scripts for the original may have; those who type one are told why it is refused."""
    names = ", ".join(next(word for word in name.split() if word.startswith("--")) for name, _ in rows)
    return _wrapped(f"Refused, with the reason: {names}", columns, hanging="  ")


def _see_also(entry: Command, columns: int) -> str:
    others = ", ".join(f"firectl {other}".replace(" ", _TIED) for other in entry.see_also)
    return _wrapped(f"See also: {others}", columns, hanging="  ").replace(_TIED, " ") if others else ""


def _joined(blocks: Iterable[str]) -> str:
    return "\n\n".join(block for block in blocks if block) + "\n"
