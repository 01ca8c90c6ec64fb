"""Weights & Biases with its real package: offline, and where nobody answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workers.training.config import JobSpec
from workers.training.running.tracking import KEY_VARIABLE, shown_settings, without_key

pytestmark = pytest.mark.training

KEY = "0123456789abcdef0123456789abcdef01234567"
NOBODY = "http://127.0.0.1:9"
ROWS = [{"sky": i, "colour": ["red", "green", "blue", "white"][i % 4]} for i in range(8)]
COMPLETION = {
    "kind": "text_completion",
    "input_template": "the colour of sky {sky} is",
    "output_template": " {colour}",
    "epochs": 2,
}
MakeSpec = Callable[..., JobSpec]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder of its own, in which nothing is to be left; and the key, as a trainer has it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("NETRC", str(folder / ".netrc"))
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", "")
    yield folder


def wandb(**changes: Any) -> dict[str, Any]:
    return {"project": "skies", "entity": "acme", "run_id": "run77", "mode": "offline", **changes}


def holding(folder: Path, words: str) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if words.encode() in path.read_bytes()]


def test_an_offline_run_is_a_folder_of_the_job_s_and_holds_no_key(
    jobs: Any, make_spec: MakeSpec, home: Path, capfd: Any, caplog: Any
) -> None:
    metrics, report = jobs.run(make_spec(ROWS, **COMPLETION, wandb=wandb()))

    (log,) = (jobs.folder / "work" / "wandb").glob("offline-run-*/run-run77.wandb")
    for words in (b"skies", b"learning_rate", b"grad_norm"):
        assert words in log.read_bytes(), words
    assert report.warnings == []
    assert "wandb_url" not in metrics
    assert holding(jobs.folder, KEY) == []
    assert list(home.rglob("*")) == []
    assert KEY_VARIABLE not in os.environ
    objects = [jobs.store.get_bytes(item.key) for item in jobs.store.list("")]
    assert not [content for content in objects if KEY.encode() in content]
    said = capfd.readouterr()
    assert KEY not in said.out + said.err + caplog.text


def test_a_job_trains_on_where_nobody_answers(
    jobs: Any, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.training.running.tracking.START_SECONDS", 3.0)

    _, report = jobs.run(make_spec(ROWS, **COMPLETION, wandb=wandb(mode="online", base_url=NOBODY)))

    assert len(jobs.losses()) == report.steps
    assert [warning for warning in report.warnings if "nothing is logged to Weights & Biases" in warning]
    assert KEY not in str(report)
    assert holding(jobs.folder, KEY) == []


def test_a_job_that_goes_on_without_its_key_says_so_and_trains(
    jobs: Any, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE)

    _, report = jobs.run(make_spec(ROWS, **COMPLETION, wandb=wandb(mode="online", base_url=NOBODY)))

    assert any("API key was forgotten" in warning for warning in report.warnings)


def test_what_is_shown_there_names_no_place(make_spec: MakeSpec) -> None:
    shown = shown_settings(make_spec(ROWS, **COMPLETION))

    assert (shown["learning_rate"], shown["dataset"]) == (2e-2, "accounts/acme/inputs/bb")
    assert "fine-tuning-jobs" not in str(shown)
    assert without_key(f"bad key {KEY}", KEY) == "bad key ***"
