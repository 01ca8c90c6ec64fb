"""trl's preference trainer, given pairs that are tokenized already; and the same with the loss of ORPO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from trl import DPOTrainer

from workers.training.examples.encoding import IGNORED
from workers.training.running.together import even_sampler, sum_of_ranks

TOKENS = "num_tokens"
"""What trl calls the number of tokens so far, the one thing that is not a mean."""
MOST_CERTAIN = -1e-6
"""The odds of an answer of probability 1 are infinite."""


class PreferenceTrainer(DPOTrainer):
    """DPO (https://arxiv.org/abs/2305.18290, equation 7) as trl has it.

    A step's loss is the mean over its pairs, those of all ranks; so are the numbers that are logged.
    """

    loss_is_scaled_for_ga = True
    """By `compute_loss`: micro batches are of different sizes where pairs are packed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sums = Counter[str]()
        """Of the pairs since the last log in this rank: their number, and what they are logged with."""
        self._tokens = 0
        """Of all pairs of this rank."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        alone = self.args.world_size == 1
        return super()._get_train_sampler(train_dataset) if alone else even_sampler(self)

    def _get_num_items_in_batch(self, batches: list[dict[str, torch.Tensor]], device: Any) -> int:
        own = torch.tensor(sum(map(count_pairs, batches)), device=device)
        return int(self.accelerator.gather(own).sum())

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: int | None = None
    ) -> Any:
        """The mean over the pairs of a micro batch; with `num_items_in_batch` its part of the step's mean.

        The gradients of the ranks are averaged, so a rank's part is taken as many times as there are ranks.
        """
        with nothing_gathered(self.accelerator):
            found = super().compute_loss(model, inputs, return_outputs)
        if num_items_in_batch is None:
            return found
        self._sum_up(inputs)
        return found * (count_pairs(inputs) * self.accelerator.num_processes / num_items_in_batch)

    def _sum_up(self, batch: dict[str, torch.Tensor]) -> None:
        pairs = count_pairs(batch)
        self._sums["pairs"] += pairs
        self._tokens += int(batch["attention_mask"].sum()) if pairs else 0
        for name, values in self._metrics["train"].items():
            if name != TOKENS:
                self._sums[name] += pairs * values.pop()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Every rank comes here after the same steps."""
        sums = sum_of_ranks({**self._sums, TOKENS: self._tokens})
        self._sums.clear()
        pairs, tokens = sums.pop("pairs", 0), sums.pop(TOKENS)
        if pairs:
            means = {name: [total / pairs] for name, total in sums.items()}
            self._metrics["train"].update(means | {TOKENS: [tokens]})
        super().log(logs, start_time)

    def measure(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """The loss and the rewards of a batch, as they are logged while training. The model is in `eval`."""
        self._metrics["eval"].clear()
        loss = self.compute_loss(self.model, batch)
        found = {name: float(values[0]) for name, values in self._metrics["eval"].items()}
        self._metrics["eval"].clear()
        return {**found, "loss": loss.item()}


@contextmanager
def nothing_gathered(accelerator: Any) -> Iterator[None]:
    """trl averages what it logs over the ranks, batch by batch, and takes batches of one size for granted.

    Ours differ in it, and held-out pairs are measured by the first rank alone.
    """
    accelerator.gather = accelerator.gather_for_metrics = lambda found: found
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


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
        self._note(better.detach(), worse.detach())
        self._metrics[self._mode]["nll_loss"].append(likelihood.item())
        return (loss, outputs) if return_outputs else loss

    def _note(self, better: torch.Tensor, worse: torch.Tensor) -> None:
        """What DPO logs: here a reward is λ times the mean log-probability of an answer."""
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

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"


def count_pairs(batch: dict[str, torch.Tensor]) -> int:
    """Those that train something: an empty pair is in a batch by itself."""
    return len(batch["input_ids"]) // 2 if batch["completion_mask"].any() else 0


def log_odds(log_probability: torch.Tensor) -> torch.Tensor:
    """log(P / (1 − P)), the logarithm of the paper's equation 4."""
    certain = log_probability.clamp(max=MOST_CERTAIN)
    return certain - torch.log(-torch.expm1(certain))
