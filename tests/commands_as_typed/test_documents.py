"""Whether the table is whole: against the documents, where they lie beside the checkout, and by itself."""

from __future__ import annotations

import re
from pathlib import Path

from tests.commands_as_typed.table import entries, squeezed

DOCUMENTS = Path(__file__).resolve().parents[3] / "shared" / "documents"
LINE = re.compile(r"^\s*(?:sudo )?(firectl (?:[^\n]*\\\n)*[^\n]*)$", re.M)
QUOTED = re.compile(r"`(firectl [^`\n]+)`")
PROSE = re.compile(r"^firectl will return")


def lines_of_the_documents() -> set[str]:
    found = set()
    for path in DOCUMENTS.glob("*.txt"):
        text = path.read_text()
        lines = [*LINE.findall(text), *QUOTED.findall(text)]
        found |= {squeezed(line) for line in lines if not PROSE.match(line)}
    return found


if DOCUMENTS.is_dir():  # beside the checkout; the tests do without them

    def test_every_line_of_the_documents_is_in_the_table():
        in_table = {entry.as_in_the_documents.removeprefix("sudo ") for entry in entries()}
        found = lines_of_the_documents()
        assert len(found) > 80
        assert sorted(found - in_table) == []


def test_no_line_stands_in_the_table_twice():
    lines = [(entry.tier, squeezed(entry.line)) for entry in entries()]
    assert sorted(line for line in set(lines) if lines.count(line) > 1) == []


def test_every_line_checks_something():
    for entry in entries():
        assert any((entry.code, entry.stdout, entry.stderr, entry.then, entry.files)), entry.line
