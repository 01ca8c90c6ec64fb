"""Supervised fine-tuning: rows that show what to answer, and the likelihood of those answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from trl import SFTConfig, SFTTrainer

from workers.training.examples.dataset import pack_examples
from workers.training.examples.encoding import IGNORED
from workers.training.examples.held_out import held_out_of
from workers.training.examples.reading import reading_of
from workers.training.examples.tokenizer import stop_token_ids
from workers.training.inputs import Inputs
from workers.training.job import Job
from workers.training.objectives.objective import Examples, Objective, TrainerParts
from workers.training.outcome.evaluate import evaluate
from workers.training.outcome.exact_match import (
    TOKENS_AT_ONCE,
    ExactMatch,
    known_labels,
    measure_exact_match,
)
from workers.training.preflight.findings import refuse
from workers.training.preflight.report import Data, check_data
from workers.training.running.together import even_sampler, with_an_empty_one

log = logging.getLogger(__name__)

EMPTY = {"input_ids": [0], "labels": [IGNORED], "seq_lengths": [1]}
"""An example that trains nothing."""


def prepare_examples(job: Job, inputs: Inputs, tokenizer: Any) -> Examples:
    """Tokenize and check the datasets, hold rows out for evaluation, and pack, where the job asks for it."""
    checked = check_data(data_of(job, inputs, tokenizer), inputs.base, tokenizer, job.work_dir)
    job.report.check(checked)
    job.warn(*checked.warnings)
    refuse(checked.findings)
    counts, longest = checked.train, checked.longest
    log.info("%d rows, %d tokens, %d of them trained", counts.rows_in, counts.tokens, counts.trained_tokens)
    train, held_out = held_out_of(job, checked.tokenized)
    stop_ids = frozenset(stop_token_ids(inputs.base, tokenizer))
    labels: list[str] = []
    if job.spec.kind == "text_classification" and held_out is not None:
        labels = known_labels(tokenizer, stop_ids, train, held_out)
    if job.spec.batch_tokens:
        train = pack_examples(train, job.spec.batch_tokens, job.work_dir / "packs.arrow")
        longest = max(len(ids) for ids in train["input_ids"])
    return Examples(train, held_out, longest, stop_ids, tuple(labels))


def data_of(job: Job, inputs: Inputs, tokenizer: Any) -> Data:
    spec, reading = job.spec, reading_of(job.spec, tokenizer)
    return Data(reading, inputs.dataset, inputs.evaluation_dataset, spec.cutoff_length, spec.epochs)


class SupervisedTrainer(SFTTrainer):
    """Gives every rank of a job equal shares of an epoch, filled up with examples that train nothing."""

    _flops_of_a_token: int | None = None

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """As the original, which looks at every module of the model again for every batch."""
        tokens = int(inputs["input_ids"].numel())
        if self._flops_of_a_token is None:
            self._flops_of_a_token = int(super().floating_point_ops(inputs)) // tokens
        return self._flops_of_a_token * tokens

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        alone = self.args.world_size == 1
        return super()._get_train_sampler(train_dataset) if alone else even_sampler(self)


def make_trainer(parts: TrainerParts) -> Any:
    train = parts.examples.train
    return SupervisedTrainer(
        model=parts.model,
        args=SFTConfig(
            **parts.arguments,
            # The examples are tokenized and cut already, and are not to be touched again.
            max_length=None,
            packing=False,
            # Packed rows lie end to end, and each sees only itself.
            padding_free=bool(parts.job.spec.batch_tokens),
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=train if parts.rank.is_alone else with_an_empty_one(train, EMPTY),
        processing_class=parts.tokenizer,
        peft_config=parts.peft_config,
        callbacks=parts.callbacks,
    )


def ask(trainer: Any, examples: Examples, is_stopping: Callable[[], bool]) -> ExactMatch | None:
    return measure_exact_match(
        trainer.model,
        trainer.processing_class,
        examples.stop_ids,
        examples.held_out,
        examples.labels,
        is_stopping,
        # What training was found to have room for.
        min(TOKENS_AT_ONCE, trainer.args.per_device_train_batch_size * examples.longest),
    )


OBJECTIVE = Objective(prepare_examples, make_trainer, evaluate, ask)
