"""Which examples a job trains on, and which it is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workers.training.examples.dataset import Tokenized, count_tokens, open_examples, split_rows, spread
from workers.training.job import Job

MOST_MEASURED = 5000
"""Held-out examples that are evaluated, ten times and more in a job. A larger sample says hardly more."""


def held_out_of(job: Job, tokenized: Sequence[Tokenized]) -> tuple[Any, Any | None]:
    """Examples to train on and to evaluate on: of two datasets, or of one that is split."""
    examples = open_examples(tokenized[0])
    if len(tokenized) > 1:
        return examples, measured(job, open_examples(tokenized[1]))
    if not job.spec.evaluates or not job.spec.evaluation_split:
        return examples, None
    return hold_out(job, examples)


def hold_out(job: Job, examples: Any) -> tuple[Any, Any | None]:
    rows = rows_of(examples)
    train, held_out = split_rows(rows, job.spec.evaluation_split, job.spec.seed)
    if not held_out:
        job.warn("nothing was evaluated: of a single row none can be held out")
        return examples, None
    job.report.rows_trained -= len(set(rows[held_out].tolist()))
    evaluated = examples.select(held_out)
    tokens, trained = count_tokens(evaluated)
    job.report.tokens -= tokens
    job.report.trained_tokens -= trained
    return examples.select(train), measured(job, evaluated)


def measured(job: Job, held_out: Any) -> Any:
    """Those of the held-out examples that are evaluated: at most MOST_MEASURED."""
    count = len(held_out)
    if count > MOST_MEASURED:
        held_out = held_out.select(spread(count, MOST_MEASURED))
        job.warn(
            f"{MOST_MEASURED:,} of {count:,} held-out examples are evaluated, spread evenly over all of "
            "them: each evaluation measures them anew"
        )
    job.report.rows_evaluated = len(set(rows_of(held_out).tolist()))
    return held_out


def rows_of(examples: Any) -> Any:
    """The number of each example's row."""
    # Not as a list, since there may be millions. The library's own arrays look for images of other libraries.
    return examples.select_columns("row").with_format("arrow")[:]["row"].to_numpy()
