"""trl's preference trainer, given pairs that are tokenized already; and the same with the loss of ORPO."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid
from trl import DPOTrainer

from workers.training.examples.encoding import IGNORED

MOST_CERTAIN = -1e-6
"""The odds of an answer of probability 1 are infinite."""


class PreferenceTrainer(DPOTrainer):
    """DPO (https://arxiv.org/abs/2305.18290, equation 7) as trl has it.

    A step's loss is the mean over its pairs.
    """

    loss_is_scaled_for_ga = True
    """By `compute_loss`: micro batches are of different sizes where pairs are packed."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _get_num_items_in_batch(self, batches: list[dict[str, torch.Tensor]], *_: Any) -> int:
        return sum(map(count_pairs, batches))

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: int | None = None
    ) -> Any:
        """The mean over the pairs of a micro batch; with `num_items_in_batch` its part of the step's mean."""
        found = super().compute_loss(model, inputs, return_outputs)
        return found * count_pairs(inputs) / num_items_in_batch if num_items_in_batch else found

    def measure(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """The loss and the rewards of a batch, as they are logged while training. The model is in `eval`."""
        self._metrics["eval"].clear()
        loss = self.compute_loss(self.model, batch)
        found = {name: float(values[0]) for name, values in self._metrics["eval"].items()}
        self._metrics["eval"].clear()
        return {**found, "loss": loss.item()}


class OrpoTrainer(PreferenceTrainer):
    """ORPO (https://arxiv.org/abs/2403.07691), which needs no reference model. `beta` is the paper's λ."""

    def _compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool) -> Any:
        """Equations 6 and 7: L = L_SFT + λ · L_OR, with L_OR = −log σ(log odds(y_w|x) − log odds(y_l|x)).

        The log-probability of an answer is the mean over its tokens, equation 3. L_SFT is the mean negative
        log-likelihood of the better answers' tokens.
        """
        answers = inputs["completion_mask"] != 0
        labels = inputs["input_ids"].masked_fill(~answers, IGNORED)
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=labels,
            use_cache=False,
            fused_lm_head=True,
        )
        sums, tokens = outputs.log_probs.sum(dim=1), answers[:, 1:].sum(dim=1)
        better, worse = (sums / tokens.clamp(min=1)).chunk(2)
        likelihood = -sums.chunk(2)[0].sum() / tokens.chunk(2)[0].sum().clamp(min=1)
        odds = log_odds(better) - log_odds(worse)
        loss = likelihood - self.beta * logsigmoid(odds).mean()
        self._note(better.detach(), worse.detach(), inputs["attention_mask"])
        self._metrics[self._mode]["nll_loss"].append(likelihood.item())
        return (loss, outputs) if return_outputs else loss

    def _note(self, better: torch.Tensor, worse: torch.Tensor, attended: torch.Tensor) -> None:
        """What DPO logs: here a reward is λ times the mean log-probability of an answer."""
        if self._mode == "train":
            self._total_train_tokens += int(attended.sum())
        values = {
            "rewards/chosen": self.beta * better.mean(),
            "rewards/rejected": self.beta * worse.mean(),
            "rewards/accuracies": (better > worse).float().mean(),
            "rewards/margins": self.beta * (better - worse).mean(),
            "logps/chosen": better.mean(),
            "logps/rejected": worse.mean(),
        }
        for name, value in values.items():
            self._metrics[self._mode][name].append(value.item())
        self._metrics[self._mode]["num_tokens"] = [self._total_train_tokens]

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"


def count_pairs(batch: dict[str, torch.Tensor]) -> int:
    return len(batch["input_ids"]) // 2


def log_odds(log_probability: torch.Tensor) -> torch.Tensor:
    """log(P / (1 − P)), the logarithm of the paper's equation 4."""
    certain = log_probability.clamp(max=MOST_CERTAIN)
    return certain - torch.log(-torch.expm1(certain))
