"""Which held-out examples are measured: as many as say something, each again at every evaluation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset

from workers.training.examples import held_out
from workers.training.examples.dataset import spread
from workers.training.examples.encoding import IGNORED
from workers.training.examples.held_out import hold_out, measured
from workers.training.outcome.result import Report


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(held_out, "MOST_MEASURED", 4)
    warnings: list[str] = []
    report = Report(rows_trained=20, tokens=40, trained_tokens=20)
    return SimpleNamespace(
        spec=SimpleNamespace(evaluation_split=0.5, seed=1), report=report, warn=warnings.append, told=warnings
    )


def examples(count: int, of_a_row: int = 1) -> Dataset:
    rows = [i // of_a_row for i in range(count)]
    return Dataset.from_dict({"input_ids": [[1, 2]] * count, "labels": [[IGNORED, 2]] * count, "row": rows})


def test_of_many_examples_a_few_of_all_parts_are_measured_and_that_is_told(job: Any) -> None:
    assert measured(job, examples(10))["row"][:] == [0, 2, 5, 7]
    assert job.report.rows_evaluated == 4
    assert job.told == [
        "4 of 10 held-out examples are evaluated, spread evenly over all of them: each evaluation measures "
        "them anew"
    ]


def test_as_many_as_can_be_measured_all_are(job: Any) -> None:
    assert measured(job, examples(4, of_a_row=2))["row"][:] == [0, 0, 1, 1]
    assert (job.report.rows_evaluated, job.told) == (2, [])


def test_rows_that_are_held_out_and_not_measured_are_not_trained_on_either(job: Any) -> None:
    train, evaluated = hold_out(job, examples(20))
    assert evaluated is not None
    assert (len(train), len(evaluated)) == (10, 4)
    assert not set(train["row"][:]) & set(evaluated["row"][:])
    assert (job.report.rows_trained, job.report.rows_evaluated, job.report.tokens) == (10, 4, 20)


@pytest.mark.parametrize(
    ("count", "most", "places"), [(0, 3, []), (3, 3, [0, 1, 2]), (4, 3, [0, 1, 2]), (9, 3, [0, 3, 6])]
)
def test_places_are_spread_evenly(count: int, most: int, places: list[int]) -> None:
    assert spread(count, most) == places
