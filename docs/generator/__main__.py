"""Writes the reference pages anew: `python -m docs.generator`, from the repository's root."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generator.pages import PAGES

DOCS = Path(__file__).resolve().parents[1]


def main() -> None:
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
        sys.stdout.write(f"docs/{name}\n")


if __name__ == "__main__":
    main()
