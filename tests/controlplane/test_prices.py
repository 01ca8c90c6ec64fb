"""Prices: costs are whole nano-dollars, rounded once."""

from __future__ import annotations

from decimal import Decimal

import pytest

from controlplane.prices import Prices


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [((1, 0, 0), 0), ((1, 0, 1), 1), ((10, 4, 0), 1), ((10**9, 0, 0), 75_000_000), ((5, 9, 0), 0)],
)
def test_tokens_cost_whole_nano_dollars(tokens, cost):
    prices = Prices.model_validate(
        {"tokens": {"default": {"prompt": "0.000075", "cachedPrompt": "0.00005", "completion": "0.001"}}}
    )
    assert prices.of_tokens("accounts/fireworks/models/m", *tokens) == cost


def test_half_a_nano_dollar_goes_to_the_even_one():
    prices = Prices.model_validate({"tokens": {"default": {"prompt": Decimal("0.0005")}}})
    assert [prices.of_tokens("m", count, 0, 0) for count in (1, 2, 3, 5)] == [0, 1, 2, 2]
