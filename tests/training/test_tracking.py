"""Weights & Biases with its real package: offline, and where nobody answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from controlplane.storage import ObjectStore
from workers.training.config import JobSpec
from workers.training.errors import Interrupted
from workers.training.job import Job
from workers.training.outcome.result import Report
from workers.training.running.progress import ProgressReport
from workers.training.running.stop import StopRequest
from workers.training.running.tracking import shown_settings, tracked, without_key

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
    """A home folder of its own, in which nothing is to be left."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("NETRC", str(folder / ".netrc"))
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
    metrics, report = jobs.run(make_spec(ROWS, **COMPLETION, wandb=wandb()), KEY)

    (log,) = (jobs.folder / "work" / "wandb").glob("offline-run-*/run-run77.wandb")
    for words in (b"skies", b"learning_rate", b"grad_norm"):
        assert words in log.read_bytes(), words
    assert report.warnings == []
    assert "wandb_url" not in metrics
    assert holding(jobs.folder, KEY) == []
    assert list(home.rglob("*")) == []
    assert KEY not in os.environ.values()
    objects = [jobs.store.get_bytes(item.key) for item in jobs.store.list("")]
    assert not [content for content in objects if KEY.encode() in content]
    said = capfd.readouterr()
    assert KEY not in said.out + said.err + caplog.text


def test_a_job_trains_on_where_nobody_answers(
    jobs: Any, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.training.running.tracking.START_SECONDS", 3.0)

    _, report = jobs.run(make_spec(ROWS, **COMPLETION, wandb=wandb(mode="online", base_url=NOBODY)), KEY)

    assert len(jobs.losses()) == report.steps
    assert [warning for warning in report.warnings if "nothing is logged to Weights & Biases" in warning]
    assert KEY not in str(report)
    assert holding(jobs.folder, KEY) == []


def test_a_job_that_goes_on_without_its_key_says_so_and_trains(jobs: Any, make_spec: MakeSpec) -> None:
    _, report = jobs.run(make_spec(ROWS, **COMPLETION, wandb=wandb(mode="online", base_url=NOBODY)))

    assert any("API key was forgotten" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("end", "preempted", "exit_code"),
    [(Interrupted(), True, 143), (ValueError("x"), False, 1), (None, False, 0)],
)
def test_a_run_ends_there_as_its_attempt_did(
    object_store: ObjectStore,
    make_spec: MakeSpec,
    tmp_path: Path,
    end: BaseException | None,
    preempted: bool,
    exit_code: int,
) -> None:
    spec = make_spec(ROWS, **COMPLETION, wandb=wandb(run_id=f"ends-{exit_code}"))
    progress = ProgressReport(object_store, spec.output_prefix)
    job = Job(spec, object_store, progress, StopRequest(), Report(), tmp_path / "cache", tmp_path / "work")

    with suppress(Interrupted, ValueError), tracked(job):
        if end:
            raise end

    (log,) = (job.work_dir / "wandb").glob("offline-run-*/run-ends-*.wandb")
    deadline = time.monotonic() + 30
    while not (ends := [record.exit for record in records_of(log) if record.HasField("exit")]):
        assert time.monotonic() < deadline
        time.sleep(0.02)  # A process of the library's own writes it.
    assert [end.exit_code for end in ends] == [exit_code]
    assert any(record.HasField("preempting") for record in records_of(log)) == preempted


def records_of(log: Path) -> list[Any]:
    """What was logged: after 7 bytes of its own, records, each behind a checksum, its length and a type."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, found = log.read_bytes(), 7, []
    while place < len(content):
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        found.append(Record.FromString(content[place + 7 : place + 7 + length]))
        place += 7 + length
    return found


def test_what_is_shown_there_names_no_place(make_spec: MakeSpec) -> None:
    shown = shown_settings(make_spec(ROWS, **COMPLETION))

    assert (shown["learning_rate"], shown["dataset"]) == (2e-2, "accounts/acme/inputs/bb")
    assert "fine-tuning-jobs" not in str(shown)
    assert without_key(f"bad key {KEY}", KEY) == "bad key ***"
