"""Completion in a shell: what may follow the words that are typed so far.

The shell asks `firectl __complete SHELL WORD…`, where the last word is the one to be completed. Whatever goes
wrong here is silent: a person who presses the tab key has asked for no error.
"""

import io
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

from cli.errors import CliError
from cli.language import registry, tree
from cli.language.argv import GLOBAL, Line
from cli.language.registry import Command
from cli.resources import RESOURCES, short_id

WAIT_SECONDS = 1.0  # for ids from the server
_MOST_IDS = 200
# Flags that take the id of a resource which exists.
_FLAG_NOUNS = {
    "--base-model": "model",
    "--dataset": "dataset",
    "--default-draft-model": "model",
    "--deployment": "deployment",
    "--deployment-id": "deployment",
    "--deployment-shape": "deployment-shape",
    "--draft-base-model": "model",
    "--draft-model": "model",
    "--evaluation-dataset": "dataset",
    "--model": "model",
    "--warm-start-from": "model",
}
_SCRIPTS = {
    "bash": """\
_firectl() {
    local IFS=$'\\n'
    COMPREPLY=($("${COMP_WORDS[0]}" __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _firectl firectl
""",
    "zsh": """\
#compdef firectl
_firectl() {
    local -a found
    found=("${(@f)$("${words[1]}" __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        _describe 'firectl' found
    else
        _files
    fi
}
compdef _firectl firectl
""",
    "fish": """\
function __firectl_complete
    set -l words (commandline -opc)
    set -l found ($words[1] __complete fish $words[2..-1] (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c firectl -f -a '(__firectl_complete)'
""",
}


class Candidate(NamedTuple):
    """A word that may follow."""

    value: str
    help: str = ""


def script(shell: str) -> str:
    """The script that a shell reads to complete firectl's command lines."""
    return _SCRIPTS[shell]


def answer(argv: Sequence[str]) -> str:
    """One line for each candidate, as the shell takes it."""
    shell, *words = argv or [""]
    typed = _joined(words) if shell == "bash" else list(words)
    last = typed.pop() if typed else ""
    prefix, _, ending = last.rpartition("=") if last.startswith("--") else ("", "", last)
    found = candidates(typed, last)
    fitting = {each.value: each for each in found if each.value.startswith(ending if prefix else last)}
    # bash completes what stands behind the `=`; the others the whole word.
    before = f"{prefix}=" if prefix and shell != "bash" else ""
    return "".join(f"{_shown(before, each, shell)}\n" for each in fitting.values())


def _joined(words: Iterable[str]) -> list[str]:
    """bash hands out `--name=value` as three words."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].startswith("--") and (word == "=" or joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def _shown(before: str, candidate: Candidate, shell: str) -> str:
    value = before + candidate.value
    text = " ".join(candidate.help.split())
    if not text or shell == "bash":
        return value.replace(":", "\\:") if shell == "zsh" else value
    return f"{value.replace(':', chr(92) + ':')}:{text}" if shell == "zsh" else f"{value}\t{text}"


def candidates(typed: Sequence[str], last: str) -> list[Candidate]:
    """What may stand in the place of the last word; some of it may not begin as that does."""
    line = registry.understood(typed)
    entry = registry.find_by_words(line.command) if line.command else None
    literal = "--" in typed
    if last.startswith("--") and "=" in last and not literal:
        return _values(line, entry, last.partition("=")[0])
    if last.startswith("-") and not literal:
        return _flags(entry, typed)
    options = GLOBAL | registry.options_of(entry) if entry else GLOBAL
    if typed and not literal and typed[-1] in options.values:
        return _values(line, entry, typed[-1])
    if entry is None:
        return _words(line)
    return _arguments(line, entry)


def _words(line: Line) -> list[Candidate]:
    from cli.language.help import ONE_WORD

    if not line.command:
        return [Candidate(word, ONE_WORD.get(word, "")) for word in tree.first_words()]
    if len(line.positional) > 1:
        return []
    return [Candidate(word) for word in tree.second_words(line.command[0])]


def _flags(entry: Command | None, typed: Sequence[str]) -> list[Candidate]:
    params = [*(tree.leaf(entry, entry.verb).params if entry else []), *tree.root_params()]
    options = [param for param in params if param.param_type_name == "option" and not param.hidden]
    return [
        Candidate(name, param.help or "")
        for param in options
        for name in param.opts
        if name.startswith("--") and (name not in typed or param.multiple)
    ]


def _values(line: Line, entry: Command | None, name: str) -> list[Candidate]:
    """The values of a flag."""
    params = [*(tree.leaf(entry, entry.verb).params if entry else []), *tree.root_params()]
    param = next((param for param in params if name in param.opts), None)
    if name in ("-p", "--profile"):
        return _profiles()
    if param is None:
        return []
    choices = _choices(param)
    if choices:
        return [Candidate(choice) for choice in choices]
    new = entry is not None and entry.verb == "create" and name == f"--{entry.noun}-id"
    noun = "" if new else next((_FLAG_NOUNS[each] for each in param.opts if each in _FLAG_NOUNS), "")
    return _ids(line, noun)


def _arguments(line: Line, entry: Command) -> list[Candidate]:
    """The values of the next argument of a command."""
    given = len(line.positional) - len(line.command)
    params: list[Any] = tree.leaf(entry, entry.verb).params
    arguments = [p for p in params if p.param_type_name == "argument" and not p.hidden]
    if given >= len(arguments) and not (arguments and arguments[-1].nargs == -1):
        return []
    param = arguments[min(given, len(arguments) - 1)]
    if entry.verb == "help":
        from cli.language.help_topics import TOPICS

        return [Candidate(word) for word in (*TOPICS, *tree.first_words())]
    choices = _choices(param)
    if choices:
        return [Candidate(choice) for choice in choices]
    return _ids(line, _noun_of(entry, str(param.metavar or param.name)))


def _noun_of(entry: Command, metavar: str) -> str:
    """The kind of resource that an argument names; "" for what is new or no resource."""
    name = metavar.strip("[]").lower().replace("_", "-")
    if name == "id":
        return "" if entry.verb == "create" else entry.noun
    return name


def _choices(param: Any) -> list[str]:
    if "|" in (param.metavar or ""):
        return str(param.metavar).split("|")
    return [str(getattr(choice, "value", choice)) for choice in param.type_descriptor.choices or ()]


def _profiles() -> list[Candidate]:
    import configparser

    from cli.connection import profile

    names: dict[str, None] = {}
    for path in (profile.directory() / name for name in ("settings.ini", "auth.ini")):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path)
        except (configparser.Error, OSError):
            continue
        names.update(dict.fromkeys(parser.sections()))
    return [Candidate(name) for name in names]


def _ids(line: Line, noun: str) -> list[Candidate]:
    """Ids of resources from the server; none when it does not answer soon."""
    kind = RESOURCES.get(noun)
    if kind is None or ("list", noun) not in registry.index():
        return []
    found: list[Candidate] = []

    def look() -> None:
        with suppress(CliError, OSError):  # whoever pressed the tab key has asked for no error
            session = _session(line)
            rows = session.client.look(session.parent(noun), {"pageSize": _MOST_IDS})
            key = kind.list_key or kind.collection
            found.extend(
                Candidate(short_id(str(row.get("name", ""))), str(row.get("displayName") or ""))
                for row in rows.get(key) or []
            )

    # In a thread of its own, because looking up the name of a server knows no timeout.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(WAIT_SECONDS)
    return list(found)


def _session(line: Line) -> Any:
    """A session for the global flags that are typed already, which says nothing."""
    from cli.main import session_of
    from cli.show.output import Output

    silent = Output(stdout=io.StringIO(), stderr=io.StringIO(), quiet=True)
    return session_of(_global_values(line.before), silent)


def _global_values(before: Sequence[str]) -> dict[str, str]:
    """The values of global flags, under the name of their parameter."""
    names = {name: param.name for param in tree.root_params() for name in param.opts}
    values: dict[str, str] = {}
    for name, value in pairwise(before):
        if name in GLOBAL.values:
            values[names[name]] = value
    return values
