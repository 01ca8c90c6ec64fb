"""The specification, and the steps that follow from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from workers.training.config import JobSpec, read_spec
from workers.training.errors import TrainingFailure
from workers.training.plan import micro_batch_size, plan_steps

SOURCE = {"name": "n", "uid": "1", "prefix": "p/", "files": [{"name": "f", "size": 1, "sha256": ""}]}
SPEC = {
    "job_uid": "1",
    "job_name": "accounts/a/fineTuningJobs/j",
    "day": "2026-01-31",
    "output_prefix": "accounts/a/fine-tuning-jobs/1/",
    "base_model": SOURCE,
    "datasets": [SOURCE],
    "kind": "conversation",
    "epochs": 1,
    "learning_rate": 1e-4,
    "batch_size": 8,
    "lora_rank": 8,
    "lora_alpha": 0,
    "cutoff_length": 128,
}


def spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate({**SPEC, **changes})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"epochs": 0}, "epochs: Input should be greater than 0"),
        ({"learning_rate": "NaN"}, "learning_rate: "),
        ({"lr_scheduler_type": "sideways"}, "lr_scheduler_type: Input should be 'linear'"),
        ({"datasets": []}, "datasets: "),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"output_prefix": "elsewhere/"}, "output_prefix: "),
        ({"kind": "text_completion"}, "needs input_template and output_template"),
        ({"input_template": "x"}, "do not belong to conversation jobs"),
        ({"lora_target_modules": ["q_proj", "lm_head"]}, "must not name lm_head"),
    ],
)
def test_a_mistake_in_the_specification_is_named(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "SPEC.json"
    path.write_text(json.dumps({**SPEC, **changes}))

    with pytest.raises(TrainingFailure) as caught:
        read_spec(path)

    assert caught.value.reason == "BAD_SPECIFICATION"
    assert complaint in caught.value.message


def test_what_is_not_said_has_a_default() -> None:
    found = spec()

    assert (found.alpha, found.lr_scheduler_type, found.quantize_base) == (16, "cosine", False)
    assert not found.evaluates
    assert spec(early_stop=True).evaluates


@pytest.mark.parametrize(
    ("examples", "epochs", "steps_per_epoch", "max_steps"),
    [
        (64, 1, 8, 8),
        (65, 1, 9, 9),
        (64, 0.5, 8, 4),
        (64, 0.3, 8, 3),  # 2.4 steps
        (64, 2.01, 8, 17),
        (80, 0.1, 10, 1),  # 10 * 0.1 is more than 1 in binary
        (3, 0.01, 1, 1),
    ],
)
def test_epochs_become_whole_steps(
    examples: int, epochs: float, steps_per_epoch: int, max_steps: int
) -> None:
    plan = plan_steps(spec(epochs=epochs), examples, micro=1)

    assert (plan.steps_per_epoch, plan.max_steps) == (steps_per_epoch, max_steps)
    assert bool(plan.warnings) == (max_steps != pytest.approx(epochs * steps_per_epoch))


@pytest.mark.parametrize(
    ("batch", "processes", "micro", "longest", "expected"),
    [
        (16, 1, 0, 10, 16),
        (16, 1, 0, 4096, 4),
        (16, 1, 0, 5000, 2),
        (16, 1, 0, 99_999, 1),
        (16, 1, 4, 10, 4),
        (6, 1, 4, 10, 3),
        (16, 2, 0, 10, 8),
        (16, 4, 8, 10, 4),
        (6, 2, 2, 10, 1),
    ],
)
def test_micro_batches_fill_every_step_exactly(
    batch: int, processes: int, micro: int, longest: int, expected: int
) -> None:
    job = spec(batch_size=batch, micro_batch_size=micro, processes=processes)
    plan = plan_steps(job, 64, micro_batch_size(job, longest))

    assert plan.micro_batch_size == expected
    assert plan.micro_batch_size * plan.accumulation * processes == batch
    assert bool(plan.warnings) == (micro not in (0, expected))


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ValidationError, match="3 processes cannot share a batch of 8"):
        spec(batch_size=8, processes=3)


@pytest.mark.parametrize("settings", [{"processes": 1}, {"processes": 2, "quantize_base": True}])
def test_a_base_is_divided_among_several_processes_and_not_in_four_bits(settings: dict[str, Any]) -> None:
    assert spec(batch_size=8, processes=2, divide_base=True).divide_base
    with pytest.raises(ValidationError, match="divide_base needs several processes"):
        spec(batch_size=8, divide_base=True, **settings)


def test_long_jobs_log_a_thousand_times() -> None:
    assert plan_steps(spec(epochs=100), 8_000, 10).logging_steps == 100


def test_a_warm_up_that_never_ends_is_reported() -> None:
    assert "warms up for 9" in plan_steps(spec(warmup_steps=9), 64, 10).warnings[0]
