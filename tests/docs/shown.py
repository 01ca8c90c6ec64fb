"""What README.md and docs/ show: links, headings, command lines and tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
OPERATIONS = ROOT / "docs" / "operations.md"
FILES = [README, *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
SHELLS = ("console", "sh", "bash")


@dataclass(frozen=True)
class Shown:
    """A command line in a document."""

    file: Path
    words: tuple[str, ...]
    complete: bool
    """It is to be typed as it stands; otherwise its arguments may be left out or stand-ins."""

    def __str__(self) -> str:
        return f"{self.file.name}: {' '.join(self.words)}"


def prose(file: Path) -> str:
    """A document without its code blocks."""
    return FENCE.sub("", file.read_text(encoding="utf-8"))


def spans(file: Path) -> list[str]:
    """The code in running text."""
    return SPAN.findall(prose(file))


def headings(file: Path) -> list[str]:
    return HEADING.findall(prose(file))


def links(file: Path) -> list[str]:
    return LINK.findall(SPAN.sub("", prose(file)))


def table_rows(file: Path, first_cell: str) -> list[list[str]]:
    """The rows, cell by cell, of every table line whose first cell matches."""
    rows = [line.strip("|").split(" | ") for line in prose(file).splitlines() if line.startswith("| ")]
    stripped = [[cell.strip() for cell in row] for row in rows]
    return [row for row in stripped if re.fullmatch(first_cell, row[0])]


def command_lines(program: str) -> list[Shown]:
    return [shown for file in FILES for shown in _command_lines(file) if shown.words[0] == program]


def _command_lines(file: Path) -> Iterator[Shown]:
    for language, text in FENCE.findall(file.read_text(encoding="utf-8")):
        if language in SHELLS:
            for line in _typed(text):
                yield from (Shown(file, words, complete=True) for words in _commands(line))
    for span in spans(file):
        words = tuple(span.replace("[", " ").replace("]", " ").split())
        if words:
            yield Shown(file, words, complete=False)


def _typed(block: str) -> list[str]:
    """What stands behind the prompts, with lines that end in a backslash joined to the next."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def _commands(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line of shell."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), ";"]:
        if word in ("&&", "||", "|", ";"):
            if words:
                yield tuple(words)
            words = []
        else:
            words.append(word)
