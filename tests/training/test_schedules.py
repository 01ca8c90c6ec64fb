"""Learning-rate schedules: the api, the trainer and the guide name the same, and each is one of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import get_scheduler

from controlplane.resources.fine_tuning_jobs.hyperparameters import SAME_AS, SCHEDULERS
from workers.training.config import Scheduler

GUIDE = Path(__file__).parents[2] / "docs" / "fine-tuning.md"
STEPS = 10


def rates(schedule: str, warmup: int, rate: float = 1e-4) -> tuple[float, ...]:
    """The rate of each step, as the library that trains has it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    made = get_scheduler(schedule, optimizer, num_warmup_steps=warmup, num_training_steps=STEPS)
    found = []
    for _ in range(STEPS):
        found.append(made.get_last_lr()[0])
        optimizer.step()
        made.step()
    return tuple(found)


def test_the_api_the_trainer_and_the_guide_name_the_same() -> None:
    (told,) = re.findall(r"`lrSchedulerType` is one of (.*?)\.", GUIDE.read_text(), re.DOTALL)

    assert get_args(Scheduler) == SCHEDULERS
    assert tuple(re.findall(r"`(\w+)`", told)) == SCHEDULERS
    assert not SAME_AS.keys() & set(SCHEDULERS)


def test_each_is_another_once_it_warms_up() -> None:
    assert len({rates(schedule, warmup=2) for schedule in SCHEDULERS}) == len(SCHEDULERS)


@pytest.mark.parametrize("schedule", SCHEDULERS)
def test_only_the_constant_one_does_not_warm_up(schedule: str) -> None:
    assert (rates(schedule, warmup=2) == rates(schedule, warmup=0)) == (schedule == "constant")


@pytest.mark.parametrize(("refused", "same"), SAME_AS.items())
def test_what_is_refused_would_be_another_one(refused: str, same: str) -> None:
    assert rates(refused, warmup=2, rate=1.0) == pytest.approx(rates(same, warmup=2, rate=1.0), abs=1e-6)
