"""How fast a job goes, and what is left of it, on a clock that moves when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from workers.training.running.pace import ASKING, EVALUATING, Pace, evaluations_left

CLASSIFICATION = {"kind": "text_classification", "input_template": "sky", "output_template": "colour"}
STEP, EVALUATION, ANSWERS, UPLOAD = 1.0, 50.0, 20.0, 300.0


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def during(self, seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, which takes so long."""

        def slow(*arguments: Any, **named: Any) -> Any:
            self.now += seconds
            return work(*arguments, **named)

        return slow


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


def train(pace: Pace, clock: Clock, seconds: float) -> None:
    pace.go_on()
    clock.now += seconds


def test_nothing_counts_before_the_first_step(pace: Pace, clock: Clock) -> None:
    with pace.aside(EVALUATING):
        clock.now += 60
    clock.now += 5
    assert pace.seconds == 0

    train(pace, clock, 2)
    assert pace.seconds == 2


def test_what_is_between_two_steps_counts_unless_it_is_set_aside(pace: Pace, clock: Clock) -> None:
    train(pace, clock, 2)
    clock.now += 1  # The rows of the next step are fetched.
    train(pace, clock, 2)
    pace.rest()
    clock.now += 100
    pace.rest()
    clock.now += 100
    train(pace, clock, 2)

    assert pace.seconds == 7


def test_the_time_left_is_that_of_steps_until_an_evaluation_was_seen(pace: Pace, clock: Clock) -> None:
    train(pace, clock, 30)
    assert pace.seconds_left(steps_made=10, steps_left=90, evaluations_left=4) == 270

    for took in (50, 8):
        with pace.aside(EVALUATING):
            clock.now += took
    assert pace.seconds_left(10, 90, 4) == 270 + 4 * 8

    with pace.aside(ASKING):
        clock.now += 5
    assert pace.seconds_left(10, 90, 4) == 270 + 4 * 8 + 5
    assert pace.seconds_left(100, 0, 1) == 8 + 5


def test_an_evaluation_that_fails_tells_nothing(pace: Pace, clock: Clock) -> None:
    train(pace, clock, 1)
    with pytest.raises(ValueError), pace.aside(EVALUATING):
        clock.now += 50
        raise ValueError
    clock.now += 50

    assert pace.seconds == 1
    assert pace.seconds_left(1, 9, 3) == 9


@pytest.mark.parametrize(
    ("step", "max_steps", "every", "left"),
    [(1, 12, 4, 3), (4, 12, 4, 3), (5, 12, 4, 2), (9, 12, 4, 1), (12, 12, 4, 1), (9, 10, 4, 1), (1, 1, 1, 1)],
)
def test_the_last_evaluation_is_counted_and_one_that_is_about_to_begin(
    step: int, max_steps: int, every: int, left: int
) -> None:
    due = [later for later in range(step, max_steps) if later % every == 0]
    assert evaluations_left(step, max_steps, every) == left == len(due) + 1


@pytest.mark.training
def test_a_job_tells_the_speed_of_its_steps_and_the_time_of_all_that_is_left(
    jobs: Any, make_spec: Callable[..., Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    from workers.training.objectives import supervised
    from workers.training.recipe import fine_tune
    from workers.training.running import callbacks

    own = supervised.OBJECTIVE
    assert own.ask is not None
    slow = {"evaluate": clock.during(EVALUATION, own.evaluate), "ask": clock.during(ANSWERS, own.ask)}
    monkeypatch.setattr(supervised, "OBJECTIVE", replace(own, **slow))
    monkeypatch.setattr(Trainer, "training_step", clock.during(STEP, Trainer.training_step))
    uploaded = clock.during(UPLOAD, callbacks.upload_checkpoint)
    monkeypatch.setattr(callbacks, "upload_checkpoint", uploaded)
    rows = [{"sky": f"sky number {i}", "colour": "blue"} for i in range(32)]
    held_out = {"evaluation": True, "evaluation_split": 0.5, "checkpoint_interval_steps": 3}
    spec = make_spec(rows, **CLASSIFICATION, **held_out, batch_size=4, epochs=3)
    job = replace(jobs.job(spec), pace=Pace(clock))
    told: dict[int, float] = {}
    update = job.progress.update

    def listen(**changes: Any) -> None:
        if changes.get("eta_seconds"):
            told[changes["step"]] = changes["eta_seconds"]
        update(**changes)

    monkeypatch.setattr(job.progress, "update", listen)
    with job.progress:
        fine_tune(job)

    assert clock.now == 1000 + 12 * STEP + 4 * EVALUATION + 2 * ANSWERS + 3 * UPLOAD
    for line in jobs.steps():
        assert line["tokens_per_second"] == pytest.approx(line["tokens_seen"] / line["step"] / STEP, abs=0.1)
    evaluations = [3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1]
    expected = enumerate(evaluations, start=1)
    assert told == {step: (12 - step) * STEP + left * EVALUATION + ANSWERS for step, left in expected}
