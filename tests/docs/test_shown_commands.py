"""Every command line that the documents show is one that can be typed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from cli.errors import UsageError
from cli.main import app as firectl
from launcher.main import app as hearth
from tests.docs.shown import ROOT, Shown, command_lines

HELP = ("-h", "--help")
# Words that stand for a whole command.
STAND_INS = {"COMMAND", "…"}


def of(program: str) -> list[Shown]:
    return [shown for shown in command_lines(program) if STAND_INS.isdisjoint(shown.words)]


@pytest.mark.parametrize("shown", of("firectl"), ids=str)
def test_a_firectl_command_line_parses(shown: Shown) -> None:
    words = [word for word in shown.words[1:] if word not in HELP]
    parse(typer.main.get_command(firectl), words, complete=shown.complete)


@pytest.mark.parametrize("shown", of("hearth"), ids=str)
def test_a_hearth_command_line_parses(shown: Shown) -> None:
    words = [word for word in shown.words[1:] if word not in HELP]
    parse(typer.main.get_command(hearth), words, complete=shown.complete)


@pytest.mark.parametrize("shown", command_lines("make"), ids=str)
def test_a_make_target_exists(shown: Shown) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE))
    for word in shown.words[1:]:
        name, assigned, _ = word.partition("=")
        assert name in (variables if assigned else targets)


@pytest.mark.parametrize(
    "words",
    [["get", "nothing"], ["get", "model", "m", "--nope"], ["get", "model"], ["list", "models", "x"]],
    ids=" ".join,
)
def test_what_cannot_be_typed_does_not_parse(words: list[str]) -> None:
    with pytest.raises((TyperException, UsageError)):
        parse(typer.main.get_command(firectl), words, complete=True)


def parse(command: Any, words: Sequence[str], *, complete: bool, parent: Any = None) -> None:
    """Raises for a command line that cannot be typed; an incomplete one may lack arguments and values."""
    if not words and not complete:
        return
    try:
        context = command.make_context(command.name, list(words), parent=parent)
    except typer.BadParameter:
        if complete:
            raise
        return
    if hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        _, inner, remaining = command.resolve_command(context, rest)
        parse(inner, remaining, complete=complete, parent=context)
