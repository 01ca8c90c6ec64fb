"""What a kind of job trains: how its rows become examples, and which trainer and loss they go to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from workers.training.inputs import Inputs
from workers.training.job import Job
from workers.training.outcome.evaluate import Evaluation
from workers.training.outcome.exact_match import ExactMatch
from workers.training.running.ranks import Rank

MODULES: Mapping[str, str] = {
    "conversation": "supervised",
    "text_completion": "supervised",
    "text_classification": "supervised",
    "preference": "preference",
}
"""By the kind of job: the module of this package that has its OBJECTIVE."""


@dataclass(frozen=True)
class Examples:
    """Tokenized and cut examples, as `datasets.Dataset`s."""

    train: Any
    held_out: Any | None
    longest: int
    """Tokens of the longest example to train or evaluate on, or of the longest pack."""
    stop_ids: frozenset[int] = frozenset()
    """Where an answer ends."""
    labels: tuple[str, ...] = ()
    """Of a classification: its labels, the most frequent first."""


@dataclass(frozen=True)
class TrainerParts:
    """What every trainer is made of, whatever it optimizes."""

    job: Job
    rank: Rank
    model: Any
    """The base model, with its adapter where the job goes on from one."""
    peft_config: Any | None
    """Of the adapter that the trainer is to make; None where the model has one."""
    tokenizer: Any
    examples: Examples
    arguments: dict[str, Any]
    """Of `transformers.TrainingArguments`; the objective adds those of its own."""
    callbacks: list[Any]


@dataclass(frozen=True)
class Objective:
    prepare_examples: Callable[[Job, Inputs, Any], Examples]
    """From the staged files and the tokenizer. Raises TrainingFailure."""
    make_trainer: Callable[[TrainerParts], Any]
    evaluate: Callable[[Any, Any, int, Callable[[], bool]], Evaluation | None]
    """Of the trainer, held-out examples, the batch size and whether to stop, as `evaluate.evaluate`."""
    ask: Callable[[Any, Examples, Callable[[], bool]], ExactMatch | None] | None = None
    """Of the trainer, the examples and whether to stop: whether its model answers those held out exactly.

    None where there is no one answer to compare with.
    """
    texts_of_a_row: int = 1
    """That go through the model together, for the plan of its memory."""


def objective_of(kind: str) -> Objective:
    """Imported only now: each brings libraries that take seconds to load."""
    found: Objective = import_module(f"{__package__}.{MODULES[kind]}").OBJECTIVE
    return found
