"""Links lead somewhere, and README.md's map is the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
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
    assert tracked_folders() - MAP == set()


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    linked = {(ROOT / link).resolve() for link in links(README)}
    assert {file.name for file in FILES if file != README and file not in linked} == set()


def tracked_folders() -> set[str]:
    """The top-level folders of what is committed; what else lies in a checkout is nobody's concern."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return {f"{path.partition('/')[0]}/" for path in listed.stdout.split("\0") if "/" in path}
