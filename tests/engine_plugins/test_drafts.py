"""What the plug-in for guessing ahead changes of the engine. tests/runtimes asks a real engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from workers.engine_plugins.drafts import of_each_guess, refusing_ours, unless_empty

ENDS = torch.tensor([3, 3, 5], dtype=torch.int32)
"""Three guesses for the first of three requests, none for the second, two for the third."""


@pytest.mark.parametrize(
    ("setting", "guesses"),
    [
        (torch.tensor([0.5, 2.0, 0.0]), torch.tensor([0.5, 0.5, 0.5, 1.0, 1.0])),
        (torch.tensor([5, 6, 7], dtype=torch.int32), torch.tensor([5, 5, 5, 7, 7], dtype=torch.int32)),
        (torch.tensor([5, 6, 7]), torch.tensor([5, 5, 5, 7, 7])),
    ],
)
def test_each_guess_has_the_setting_of_its_request(setting: torch.Tensor, guesses: torch.Tensor) -> None:
    found = of_each_guess(setting, ENDS, 5, replace_from=0, replace_to=1)
    assert found.dtype == setting.dtype
    assert torch.equal(found, guesses)


def test_without_guesses_there_are_no_settings() -> None:
    assert of_each_guess(torch.tensor([0.5]), torch.tensor([0], dtype=torch.int32), 0).shape == (0,)


def greatest(logits: torch.Tensor, k: torch.Tensor, p: None) -> torch.Tensor:
    return logits.topk(int(k.max()), dim=1).values


def test_nothing_is_limited_where_nothing_was_guessed() -> None:
    limit, logits = unless_empty(greatest), torch.tensor([[1.0, 3.0, 2.0]])
    assert limit(logits, torch.tensor([2]), None).tolist() == [[3.0, 2.0]]
    assert limit(torch.empty(0, 3), torch.empty(0), None).shape == (0, 3)


def test_an_engine_that_guesses_refuses_our_own_sampling_and_its_own_refusals_stay() -> None:
    def own(params: Any, speculative: Any) -> None:
        if params.min_p and speculative:
            raise TypeError

    def asked(min_p: float = 0, **extra: float) -> SimpleNamespace:
        return SimpleNamespace(min_p=min_p, extra_args=extra or None)

    check = refusing_ours(own, ValueError)
    for fine, speculative in ((asked(typical_p=0.5), None), (asked(), "ngram"), (asked(other=1), "ngram")):
        check(fine, speculative)
    with pytest.raises(ValueError, match="typical_p does not go with guessing tokens ahead"):
        check(asked(typical_p=0.5), "ngram")
    with pytest.raises(TypeError):
        check(asked(min_p=0.5), "ngram")
