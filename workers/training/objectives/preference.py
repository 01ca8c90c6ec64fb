"""Preference tuning: pairs of answers, of which the better one is to become the likelier one.

The reference model of DPO is the base without the new adapter; where a job goes on from an adapter, a frozen
copy of that adapter as it was at the start.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOConfig

from workers.training.examples.held_out import held_out_of
from workers.training.examples.pairs import EMPTY_PAIR, PairCollator, pack_pairs, pair_up
from workers.training.inputs import Inputs
from workers.training.job import Job
from workers.training.objectives.objective import Examples, Objective, TrainerParts
from workers.training.objectives.preference_trainers import OrpoTrainer, PreferenceTrainer
from workers.training.objectives.supervised import data_of
from workers.training.outcome.evaluate import Evaluation
from workers.training.preflight.findings import refuse
from workers.training.preflight.report import check_data
from workers.training.running.together import with_an_empty_one

log = logging.getLogger(__name__)

REFERENCE = "ref"
"""What trl calls its frozen copy of an adapter."""


def prepare_examples(job: Job, inputs: Inputs, tokenizer: Any) -> Examples:
    """Tokenize and check the pairs, hold some out for evaluation, and pack, where the job asks for it."""
    checked = check_data(data_of(job, inputs, tokenizer), inputs.base, tokenizer, job.work_dir)
    job.report.check(checked)
    job.warn(*checked.warnings)
    refuse(checked.findings)
    log.info("%d pairs, %d tokens", checked.train.rows_trained, checked.train.tokens)
    paired = [pair_up(found, found.path.with_suffix(".pairs.arrow")) for found in checked.tokenized]
    train, held_out = held_out_of(job, paired)
    if job.spec.batch_tokens:
        return Examples(
            pack_pairs(train, job.spec.batch_tokens, job.work_dir / "packs.arrow"),
            held_out,
            job.spec.batch_tokens,
        )
    return Examples(train, held_out, 2 * checked.longest)


def make_trainer(parts: TrainerParts) -> Any:
    preference = parts.job.spec.preference
    assert preference is not None
    orpo = preference.method == "orpo"
    still_dropout(parts.model)
    train = parts.examples.train
    empty = {**EMPTY_PAIR, "pairs": [EMPTY_PAIR]}
    trainer = (OrpoTrainer if orpo else PreferenceTrainer)(
        model=parts.model,
        args=DPOConfig(
            **parts.arguments,
            beta=preference.odds_weight if orpo else preference.beta,
            max_length=None,
            remove_unused_columns=False,
            # The adapter's own dropout is a setting of the job.
            disable_dropout=False,
        ),
        data_collator=PairCollator(parts.tokenizer.pad_token_id or parts.tokenizer.eos_token_id),
        train_dataset=train if parts.rank.is_alone else with_an_empty_one(train, empty),
        processing_class=parts.tokenizer,
        peft_config=parts.peft_config,
        callbacks=parts.callbacks,
    )
    if REFERENCE in trainer.model.peft_config:
        settle_reference(trainer.model, needed=not orpo)
    return trainer


def still_dropout(model: Any) -> None:
    """Both models answer as they do when they are served, but for the dropout of the adapter."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0


def settle_reference(model: Any, *, needed: bool) -> None:
    if not needed:
        model.delete_adapter(REFERENCE)
        return
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and name.endswith(f".{REFERENCE}"):
            module.p = 0.0


@dataclass(frozen=True)
class PreferenceEvaluation(Evaluation):
    """`loss`: the mean over all pairs."""

    accuracy: float = 0.0
    """The share of the pairs of which the better answer has become the likelier one."""
    margin: float = 0.0
    """The mean of what the better answer has gained over the worse."""

    def scores(self) -> dict[str, float]:
        return {"loss": self.loss, "accuracy": self.accuracy, "margin": self.margin}


def evaluate(
    trainer: Any, examples: Any, batch_size: int, is_stopping: Callable[[], bool]
) -> Evaluation | None:
    """Evaluate the trainer's model on pairs as it is now; None when it was asked to stop half-way."""
    model = trainer.model
    was_training = model.training
    model.eval()
    sums: Counter[str] = Counter()
    try:
        for start in range(0, len(examples), batch_size):
            if is_stopping():
                return None
            pairs = [examples[i] for i in range(start, min(start + batch_size, len(examples)))]
            batch = {name: value.to(model.device) for name, value in trainer.data_collator(pairs).items()}
            with torch.no_grad(), trainer.compute_loss_context_manager():
                measured = trainer.measure(batch)
            for name in ("loss", "rewards/accuracies", "rewards/margins"):
                sums[name] += measured[name] * len(pairs)
            sums["tokens"] += int(batch["completion_mask"].sum())
    finally:
        model.train(was_training)
    means = {name: total / len(examples) for name, total in sums.items()}
    return PreferenceEvaluation(
        means["loss"],
        int(sums["tokens"]),
        accuracy=means["rewards/accuracies"],
        margin=means["rewards/margins"],
    )


OBJECTIVE = Objective(prepare_examples, make_trainer, evaluate)
