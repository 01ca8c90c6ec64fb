"""The table of command lines: how its entries read, and how a line becomes what a shell would pass on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
PLACEHOLDER = re.compile(r"<[A-Z_]+>")


@dataclass(frozen=True)
class Entry:
    """One command line, and what it must do."""

    line: str
    """As somebody types it; `<…>` stands for what they fill in."""
    document: str = ""
    """The line as a document has it, where that differs by more than lost placeholders."""
    given: tuple[str, ...] = ()
    """What is there before, each `<what> <name>`."""
    stdin: str = ""
    code: int = 0
    stdout: tuple[str, ...] = ()
    """Texts that stdout holds. Nothing else is checked there but that it is not empty, where any is named."""
    silent: bool = False
    """stdout is empty."""
    stderr: tuple[str, ...] = ()
    then: tuple[Mapping[str, Any], ...] = ()
    """What the REST API must say afterwards."""
    files: Mapping[str, Any] = field(default_factory=dict)
    """Files that are there afterwards: path and, unless null, a text that each holds."""
    tier: str = "quick"
    """`quick`, `engine` (needs a running platform with engines) or `sign-in` (needs an identity provider)."""

    @property
    def as_in_the_documents(self) -> str:
        """The line with its placeholders lost, as the documents have it."""
        return squeezed(self.document or PLACEHOLDER.sub("", self.line))


def squeezed(text: str) -> str:
    """One line with single spaces, however it was broken."""
    return " ".join(text.replace("\\\n", " ").split())


@cache
def entries() -> tuple[Entry, ...]:
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for fields in yaml.safe_load(path.read_text()):
            frozen = {
                key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
            }
            found.append(Entry(**frozen))
    return tuple(found)


def of_tier(tier: str) -> list[Entry]:
    return [entry for entry in entries() if entry.tier == tier]


def filled(value: Any, values: Mapping[str, str]) -> Any:
    """The same with every placeholder filled in, in nested lists and mappings too."""
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda found: values[found[0][1:-1]], value)
    if isinstance(value, Mapping):
        return {filled(key, values): filled(inner, values) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [filled(inner, values) for inner in value]
    return value


def argv(line: str) -> list[str]:
    """The words that a shell passes to firectl."""
    words = shlex.split(line.replace("\\\n", " "))
    words = words[1:] if words[0] == "sudo" else words
    assert words[0] == "firectl", line
    return words[1:]


def holds(found: Any, wanted: Any) -> bool:
    """Whether a resource has these fields; lists have to be the same, mappings may have more."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            holds(found.get(key), inner) for key, inner in wanted.items()
        )
    if isinstance(wanted, float):
        return isinstance(found, int | float) and abs(found - wanted) < 1e-9
    return bool(found == wanted)
