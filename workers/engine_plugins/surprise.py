"""Sampling by surprise, which is how unlikely a token is: typical sampling and Mirostat 2, as pure functions.

A token's surprise is the negative logarithm of its probability. `logits` have any shape whose last dimension
is the vocabulary; tokens that may not come have -inf.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

DEFAULT_RATE = 0.1


def keep_typical(logits: Any, mass: Any) -> Any:
    """Keep the tokens whose surprise is nearest to the expected one, as many as it takes to make up `mass`.

    Meister et al., "Locally Typical Sampling", 2023. `mass` has the shape of the logits without their last
    dimension, and lies between 0 and 1.
    """
    surprise = -torch.log_softmax(logits, dim=-1)
    chances = torch.exp(-surprise)
    expected = torch.nansum(chances * surprise, dim=-1, keepdim=True)
    order = torch.argsort((surprise - expected).abs(), dim=-1)
    ordered = chances.gather(-1, order)
    before = ordered.cumsum(dim=-1) - ordered
    dropped = torch.zeros_like(logits, dtype=torch.bool)
    # The first one is kept even where no mass is asked for: `before` is 0 there.
    dropped.scatter_(-1, order, (before >= mass.unsqueeze(-1)) & (before > 0))
    return logits.masked_fill(dropped, -math.inf)


def keep_below(logits: Any, most: Any) -> Any:
    """Keep the tokens of no more surprise than `most`, in bits, and the likeliest one in any case."""
    bits = surprise_bits(logits)
    least = bits.min(dim=-1, keepdim=True).values
    return logits.masked_fill((bits > most.unsqueeze(-1)) & (bits > least), -math.inf)


def surprise_bits(logits: Any) -> Any:
    return -torch.log_softmax(logits, dim=-1) / math.log(2)


@dataclass
class Mirostat:
    """What one answer is held to. Basu et al., "Mirostat", 2021: the second algorithm.

    `most` follows what has come: less after a token that was more of a surprise than the target.
    """

    target: float
    """Bits."""
    rate: float = DEFAULT_RATE
    most: float = 0.0

    def __post_init__(self) -> None:
        self.most = 2 * self.target

    def see(self, bits: float) -> None:
        """A token of so much surprise has come."""
        if math.isfinite(bits):
            self.most -= self.rate * (bits - self.target)
