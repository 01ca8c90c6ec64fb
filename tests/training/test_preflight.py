"""The check of a job's data, in the trainer: all findings at once, and before the weights are loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from tests.training.conftest import PLAIN_TEMPLATE, write_rows
from workers.training.config import JobSpec
from workers.training.errors import TrainingFailure

pytestmark = pytest.mark.training

MakeSpec = Callable[..., JobSpec]


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def without_weights(make_spec: MakeSpec, publish: Any, tiny_model: Path, tmp_path: Path) -> MakeSpec:
    """A specification for a model whose weights are none: whoever loads them fails for that."""
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(b"no weights at all")
    others = [path for path in tiny_model.iterdir() if path.name != broken.name]
    return lambda rows, **settings: make_spec(rows, base_model=publish("ab", broken, *others), **settings)


def test_bad_data_ends_a_job_with_all_findings_before_its_model_is_loaded(
    jobs: Any, without_weights: MakeSpec
) -> None:
    template = (
        "{% if 'boom' in messages[0].content %}{{ raise_exception('no booms') }}{% endif %}" + PLAIN_TEMPLATE
    )
    rows = [chat("a", "b"), {"messages": []}, chat("boom", "c"), *[chat("d", "e")] * 3]

    with pytest.raises(TrainingFailure) as caught:
        jobs.run(without_weights(rows, jinja_template=template, epochs=1))

    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "BAD_ROW")
    assert caught.value.message.splitlines() == [
        "2 findings:",
        "not a row of this kind of job: 1 row (train.jsonl line 2: messages is empty)",
        "the chat template cannot render: 1 row (train.jsonl line 3: the chat template cannot render the "
        "row: no booms)",
    ]


def test_good_data_comes_to_the_model(jobs: Any, without_weights: MakeSpec) -> None:
    with pytest.raises(SafetensorError):
        jobs.run(without_weights([chat("a", "b"), chat("c", "d")], epochs=1))


def test_the_report_of_a_job_has_findings_and_lengths(
    jobs: Any, make_spec: MakeSpec, publish: Any, tmp_path: Path
) -> None:
    rows = [chat(f"the colour of sky {number}?", "blue" if number % 2 else "red") for number in range(8)]
    held_out = publish("ee", write_rows(tmp_path / "held-out.jsonl", [rows[0], chat("new", "white")]))

    _, report = jobs.run(make_spec([*rows, rows[3]], epochs=1, evaluation_dataset=held_out))

    found = {finding["code"]: finding for finding in report.findings}
    assert found.keys() == {"DUPLICATE_ROWS", "ROWS_IN_BOTH"}
    assert found["DUPLICATE_ROWS"]["places"] == ["train.jsonl line 9"]
    assert found["ROWS_IN_BOTH"]["places"] == ["held-out.jsonl line 1"]
    assert sum(step["rows"] for step in report.lengths) == 9
    assert [warning for warning in report.warnings if "train.jsonl line 9" in warning]
