"""The few forms of Markdown that the pages use."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

GENERATED = "Made from the code by `make docs`. Changes to this file are lost."

PROSE_WIDTH = 130


def page(title: str, *blocks: str) -> str:
    return "\n\n".join([f"# {title}", GENERATED, *(block for block in blocks if block)]) + "\n"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, or nothing when there are no rows."""
    lines = [_row(row) for row in rows]
    if not lines:
        return ""
    return "\n".join([_row(titles), _row(["---"] * len(titles)), *lines])


def prose(text: str) -> str:
    """Paragraphs as wide as the ones that people wrote."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(
        textwrap.fill(" ".join(each.split()), PROSE_WIDTH, break_long_words=False, break_on_hyphens=False)
        for each in paragraphs
    )


def code(text: str) -> str:
    return f"`{text}`"


def listed(names: Iterable[str]) -> str:
    return ", ".join(code(name) for name in names)


def anchor(heading: str) -> str:
    """The fragment by which a heading is linked to."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def link(heading: str) -> str:
    return f"[{heading}](#{anchor(heading)})"


def _row(cells: Sequence[str]) -> str:
    joined = " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {joined} |"
