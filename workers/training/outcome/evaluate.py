"""What a model makes of held-out rows: its loss on each, weighted by tokens, and whether it answers right."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from workers.training.outcome.exact_match import ExactMatch

LARGEST_EXPONENT = 100.0


@dataclass(frozen=True)
class Evaluation:
    loss: float
    """Mean negative log-likelihood of a trained token: the same whatever the batch size."""
    tokens: int
    exact: ExactMatch | None = None
    """None where no answers were asked for, or all are too long to be compared."""

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, LARGEST_EXPONENT))

    def scores(self) -> dict[str, float]:
        """As numbers that can be drawn and compared."""
        found = {"loss": self.loss, "perplexity": self.perplexity}
        return found | ({"exact_match": self.exact.share} if self.exact else {})

    def as_message(self) -> dict[str, Any]:
        """As the job's result keeps it."""
        return {**self.scores(), "tokens": self.tokens, **(self.exact.as_message() if self.exact else {})}


def evaluate(
    trainer: Any, examples: Any, batch_size: int, is_stopping: Callable[[], bool]
) -> Evaluation | None:
    """Evaluate the trainer's model as it is now; None when it was asked to stop half-way."""
    model = trainer.model
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    try:
        for start in range(0, len(examples), batch_size):
            if is_stopping():
                return None
            rows = [examples[i] for i in range(start, min(start + batch_size, len(examples)))]
            batch_loss, batch_tokens = _summed_loss(trainer, model, rows)
            total += batch_loss
            tokens += batch_tokens
    finally:
        model.train(was_training)
    return Evaluation(total / max(1, tokens), tokens)


def _summed_loss(trainer: Any, model: Any, rows: list[dict[str, Any]]) -> tuple[float, int]:
    batch = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in trainer.data_collator(rows).items()
    }
    with torch.no_grad(), trainer.compute_loss_context_manager():
        # The trainer's fused output layer: log-probabilities of trained tokens only, without all the logits.
        outputs = model(**batch, use_cache=False, fused_lm_head=True)
    return -outputs.log_probs.float().sum().item(), int(outputs.label_mask.sum().item())
