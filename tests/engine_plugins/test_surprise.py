"""Sampling by surprise: the mathematics, on distributions that can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from workers.engine_plugins.surprise import Mirostat, keep_below, keep_typical, surprise_bits

NEVER = -math.inf


def logits(*chances: float) -> torch.Tensor:
    return torch.tensor(chances).log()


def kept(filtered: torch.Tensor) -> list[int]:
    return torch.isfinite(filtered).nonzero().flatten().tolist()


# The entropy of these is 1.75 bits: the tokens surprise by 1, 2, 3 and 3 bits.
HALVES = (0.5, 0.25, 0.125, 0.125)


@pytest.mark.parametrize(
    ("chances", "mass", "left"),
    [
        (HALVES, 0.0, [1]),  # 2 bits are nearest to the entropy
        (HALVES, 0.25, [1]),
        (HALVES, 0.3, [0, 1]),  # then 1 bit
        (HALVES, 0.75, [0, 1]),
        (HALVES, 1.0, [0, 1, 2, 3]),
        ((0.25,) * 4, 1.0, [0, 1, 2, 3]),
        ((0.0, 1.0, 0.0), 0.5, [1]),
        # The likeliest token goes first where it is less of a surprise than expected.
        ((0.4, *[0.06] * 10), 0.5, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_what_is_about_as_surprising_as_expected_is_kept(
    chances: Sequence[float], mass: float, left: list[int]
) -> None:
    filtered = keep_typical(logits(*chances), torch.tensor(mass))
    assert kept(filtered) == left
    assert torch.equal(filtered[left], logits(*chances)[left]), "what is kept is left as it is"


def test_rows_have_masses_of_their_own() -> None:
    rows = torch.stack([logits(*HALVES)] * 2)
    filtered = keep_typical(rows, torch.tensor([0.1, 1.0]))
    assert [kept(row) for row in filtered] == [[1], [0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("most", "left"), [(0.5, [0]), (1.0, [0]), (2.1, [0, 1]), (10.0, [0, 1, 2, 3]), (-3.0, [0])]
)
def test_what_surprises_more_than_allowed_is_left_out_but_never_the_likeliest(
    most: float, left: list[int]
) -> None:
    assert kept(keep_below(logits(*HALVES), torch.tensor(most + 1e-4))) == left


def test_tokens_that_may_not_come_stay_out() -> None:
    masked = logits(*HALVES)
    masked[1] = NEVER
    assert 1 not in kept(keep_typical(masked, torch.tensor(1.0)))
    assert 1 not in kept(keep_below(masked, torch.tensor(10.0)))


def test_mirostat_allows_less_after_a_surprise_and_more_without_one() -> None:
    mirostat = Mirostat(target=2.0, rate=0.5)
    assert mirostat.most == 4.0
    mirostat.see(4.0)
    assert mirostat.most == 3.0
    mirostat.see(0.0)
    assert mirostat.most == 4.0
    mirostat.see(math.inf)
    assert mirostat.most == 4.0, "a token that was forced on it says nothing"


@pytest.mark.parametrize("target", [3.5, 4.0, 5.0])
def test_mirostat_holds_the_average_surprise_to_its_target(target: float) -> None:
    generator = torch.Generator().manual_seed(1)
    mirostat, seen = Mirostat(target), []
    for _ in range(1000):
        spread = torch.randn(200, generator=generator) * 2
        bits = surprise_bits(spread)
        chances = torch.softmax(keep_below(spread, torch.tensor(mirostat.most)), dim=-1)
        token = int(torch.multinomial(chances, 1, generator=generator))
        seen.append(float(bits[token]))
        mirostat.see(seen[-1])
    assert sum(seen[100:]) / len(seen[100:]) == pytest.approx(target, abs=0.1)
