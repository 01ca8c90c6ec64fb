"""The figures of a job that has ended: means over steps, rows and not batches, the last attempt's pace."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.test_config import spec
from tests.training.test_progress import DictionaryStore
from workers.training.job import MOST_WARNINGS, Job
from workers.training.outcome.result import Report
from workers.training.outcome.summary import summarize
from workers.training.prepare import plan_job
from workers.training.running.progress import ProgressReport
from workers.training.running.stop import StopRequest


@pytest.fixture
def store() -> DictionaryStore:
    return DictionaryStore()


def job_of(store: DictionaryStore, folder: Path, report: Report, **settings: Any) -> Job:
    progress = ProgressReport(store, "job/")  # type: ignore[arg-type]
    return Job(spec(**settings), store, progress, StopRequest(), report, folder, folder)  # type: ignore[arg-type]


def ended(step: int, epoch: float) -> Any:
    return SimpleNamespace(state=SimpleNamespace(global_step=step, total_flos=1.0, epoch=epoch))


def test_each_logged_loss_counts_for_the_steps_since_the_last_one(
    store: DictionaryStore, tmp_path: Path
) -> None:
    job = job_of(store, tmp_path, Report(steps=4000, steps_per_epoch=4000))
    # Long jobs log their first step, and then every so many.
    for step, loss in ((1, 9.0), (1000, 3.0), (4000, 1.0)):
        job.progress.add_metrics({"step": step, "loss": loss})

    metrics = summarize(job, ended(4000, 1.0), None, 10.0)

    assert metrics["train_loss"] == pytest.approx((1 * 9 + 999 * 3 + 3000 * 1) / 4000)


def test_speed_is_that_of_rows_and_of_the_last_attempt(store: DictionaryStore, tmp_path: Path) -> None:
    report = Report(rows_trained=600, steps=60, steps_per_epoch=20, resumed_from_step=40)
    packed = {"batch_tokens": 1000, "micro_batch_size": 1, "batch_size": 1}
    job = job_of(store, tmp_path, report, **packed)
    job.progress.update(tokens_seen=90_000, tokens_per_second=1500.0)

    metrics = summarize(job, ended(60, 3.0), None, 20.0)

    assert metrics["train_samples_per_second"] == 600 / 20
    assert (metrics["train_steps_per_second"], metrics["tokens_per_second"]) == (1.0, 1500.0)


def test_an_attempt_without_a_step_has_no_speed(store: DictionaryStore, tmp_path: Path) -> None:
    report = Report(rows_trained=600, steps=60, steps_per_epoch=20, resumed_from_step=60)

    metrics = summarize(job_of(store, tmp_path, report), ended(60, 3.0), None, 0.0)

    assert metrics["train_samples_per_second"] == 0
    assert "tokens_per_second" not in metrics


def test_a_warning_is_in_the_log_the_progress_and_the_report(
    store: DictionaryStore, tmp_path: Path, caplog: Any
) -> None:
    job = job_of(store, tmp_path, Report(steps=2, steps_per_epoch=2))
    with job.progress:
        job.warn("rows are cut", "labels are alike")
        for step, loss in ((1, 1.0), (2, 4.0)):
            job.progress.add_metrics({"step": step, "loss": loss})
        summarize(job, ended(2, 1.0), None, 1.0)

    rose = "the loss rose from 1.000 to 4.000; a smaller learning rate may help"
    assert job.report.warnings == ["rows are cut", "labels are alike", rose]
    assert store.progress()["warnings"] == job.report.warnings
    assert [record.getMessage() for record in caplog.records] == job.report.warnings


def test_epochs_that_are_rounded_up_are_said_so_before_the_model_is_loaded(
    store: DictionaryStore, tmp_path: Path
) -> None:
    job = job_of(store, tmp_path, Report(), epochs=1.5)

    plan_job(job, SimpleNamespace(train=range(24)), SimpleNamespace(micro_batch_size=1))  # type: ignore[arg-type]

    assert job.progress.now.warnings == ("1.5 epochs are 4.5 steps, rounded up to 5",)


def test_what_is_warned_of_again_and_again_fills_the_log_only(
    store: DictionaryStore, tmp_path: Path, caplog: Any
) -> None:
    job = job_of(store, tmp_path, Report())

    for step in range(MOST_WARNINGS + 5):
        job.warn(f"the adapter of step {step} was not kept")

    assert len(job.report.warnings) == MOST_WARNINGS
    assert len(caplog.records) == MOST_WARNINGS + 5
