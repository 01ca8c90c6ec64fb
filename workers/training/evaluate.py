"""The loss on held-out rows, weighted by tokens: the same whatever the batch size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

LARGEST_EXPONENT = 100.0


@dataclass(frozen=True)
class Evaluation:
    loss: float
    """Mean negative log-likelihood of a trained token."""
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, LARGEST_EXPONENT))


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
