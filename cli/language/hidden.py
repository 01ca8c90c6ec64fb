"""Values that nobody should see: where a command takes them from, and what is shown in their place."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.connection.session import Session
from cli.errors import CliError, UsageError

SHOWN = "(not shown)"
# Fields of requests that hold keys, which may come from the environment.
_KEYS = frozenset({"wandbApiKey", "apiKey", "directRouteApiKeys"})


def given_value(session: Session, value: str | None, file: Path | None, *, prompt: str = "") -> str | None:
    """The value of a flag, else of a file, else, with a prompt, from a pipe or typed unseen; None if nowhere.

    One line break at the end of a file or a pipe is the editor's or the shell's, and not part of the value.
    In a dry run only what stands for the value.
    """
    if value is not None and file is not None:
        raise UsageError("the value comes from a flag or from a file, not from both")
    if value is None and file is None and not prompt:
        return None
    if session.dry_run:
        return SHOWN
    if value is None:
        value = _from_file(file) if file is not None else _asked_for(prompt)
    if not value:
        raise CliError("the value is empty")
    return value


def without_keys(body: Any) -> Any:
    """A request as it may be shown: people paste it into tickets."""
    if not isinstance(body, Mapping):
        return body
    return {
        key: SHOWN if key in _KEYS and not isinstance(value, Mapping) else without_keys(value)
        for key, value in body.items()
    }


def _from_file(file: Path) -> str:
    return _text(file.read_bytes(), str(file))


def _asked_for(prompt: str) -> str:
    if not sys.stdin.isatty():
        return _text(sys.stdin.buffer.read(), "the standard input")
    import typer

    return str(typer.prompt(prompt, hide_input=True, err=True))


def _text(content: bytes, source: str) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise CliError(f"{source} does not hold text in UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")
