"""The lines that need engines and a trainer, one after the other on a whole platform."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from controlplane.db import Database
from launcher.services.postgres import Postgres
from tests.cli.conftest import Ran
from tests.commands_as_typed.checking import run_and_check
from tests.commands_as_typed.table import of_tier
from tests.commands_as_typed.world import BASE_ID, World
from tests.e2e.conftest import BIN, QUICKSTART, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(1800)]

LINE_SECONDS = 600
SETTINGS = {"dataset": "my-dataset", "base_model": f"accounts/fireworks/models/{BASE_ID}"}
HELD_OUT = json.loads((QUICKSTART / "data" / "heldout.jsonl").read_text().splitlines()[0])["messages"]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("platform") / "data")
    running.start()
    yield running
    assert running.stop() == 0


class Story(World):
    """The platform's first account, in which one line finds what the lines before it have made."""

    def values(self) -> dict[str, str]:
        made = [row["name"].rpartition("/")[2] for row in self.list("deployments")]
        said = {"QUESTION": HELD_OUT[0]["content"], "ANSWER": HELD_OUT[1]["content"].strip()}
        return {**super().values(), **said, "DEPLOYMENT": made[0] if made else self.deleted()}

    def deleted(self) -> str:
        rows = self.call("GET", "deployments", showDeleted="true")["deployments"]
        return str(rows[0]["name"]).rpartition("/")[2] if rows else ""


@pytest.fixture
def story(platform: Platform, tmp_path: Path) -> Iterator[Story]:
    """With the quickstart's files in a home folder, and its model as a public one of the platform's."""
    known = json.loads((platform.data_dir / "services.json").read_text())["postgres"]
    postgres = Postgres(platform.data_dir / "postgres", known["port"], known["password"])
    db = Database(postgres.url.replace("postgresql://", "postgresql+psycopg://"), pool_size=1)
    shutil.copytree(QUICKSTART / "model", tmp_path / "path/to/files")
    shutil.copy(QUICKSTART / "data" / "train.jsonl", tmp_path / "path/to/dataset.jsonl")
    job = (QUICKSTART / "job.yaml").read_text()
    for name, value in {**SETTINGS, "model_id": "my-addon", "job_id": "from-file"}.items():
        job = "\n".join(
            f"{name}: {value}" if line.startswith(f"{name}:") else line for line in job.splitlines()
        )
    (tmp_path / "path/to/settings.yaml").write_text(job)
    with httpx.Client(base_url=platform.url, timeout=120) as http:
        owner = World.of(db, http, "fireworks", tmp_path)
        owner.upload_model(BASE_ID, read_all(tmp_path / "path/to/files"), public=True)
        yield Story(db, http, platform.account, platform.key, tmp_path)
    db.close()


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_line_does_what_it_says_after_the_lines_before_it(platform: Platform, story: Story) -> None:
    def firectl(*argv: str, stdin: str = "") -> Ran:
        done = subprocess.run(
            [str(BIN / "firectl"), *argv],
            input=stdin,
            env={**os.environ, **platform.env, "HOME": str(story.home)},
            cwd=story.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=LINE_SECONDS,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    for entry in of_tier("engine"):
        run_and_check(entry, story, firectl)
