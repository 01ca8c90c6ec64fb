"""Links lead somewhere, and README.md's map is the repository."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from docs.generator.markdown import anchor
from tests.docs.shown import FILES, README, ROOT, headings, links, spans, table_rows

MAP = {
    folder for row in table_rows(README, r"(`[\w.]+/`(, )?)+") for folder in re.findall(r"[\w.]+/", row[0])
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_relative_link_leads_somewhere(file: Path) -> None:
    for link in links(file):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (file.parent / path) if path else file
        assert target.exists(), link
        if fragment:
            assert fragment in {anchor(heading) for heading in headings(target)}, link


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_of_ours_that_is_named_exists(file: Path) -> None:
    """Names that begin with a top-level folder of ours; `<collection>` and `*` stand for anything."""
    for span in spans(file):
        if "/" not in span or f"{span.partition('/')[0]}/" not in MAP or " " in span:
            continue
        pattern = re.sub(r"<\w+>", "*", span).rstrip("/")
        assert list(ROOT.glob(pattern)), span


def test_every_folder_of_the_map_exists() -> None:
    assert MAP
    assert {folder for folder in MAP if not (ROOT / folder).is_dir()} == set()


def test_every_top_level_folder_is_in_the_map() -> None:
    assert project_folders() - MAP == set()


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    linked = {(ROOT / link).resolve() for link in links(README)}
    assert {file.name for file in FILES if file != README and file not in linked} == set()


def project_folders() -> set[str]:
    """The top-level folders that hold something and that `.gitignore` does not name."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line]
    found = (folder for folder in ROOT.iterdir() if folder.is_dir() and any(folder.iterdir()))
    return {
        f"{folder.name}/"
        for folder in found
        if folder.name != ".git" and not any(fnmatch(folder.name, pattern) for pattern in ignored)
    }
