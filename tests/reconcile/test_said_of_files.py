"""What a client said of a model's files, against what they are."""

from __future__ import annotations

from typing import Any

import pytest

from workers.reconcile.models import contradictions

FOUND: dict[str, Any] = {
    "r": 8,
    "target_modules": ["k_proj", "q_proj"],
    "parameter_count": 100,
    "supports_tools": False,
    "supports_lora": True,
}


@pytest.mark.parametrize(
    ("said", "warnings"),
    [
        ({}, []),
        ({"r": 8, "target_modules": ["q_proj", "k_proj"], "tunable": True}, []),
        ({"r": 16}, ["r was given as 16, and by the files it is 8"]),
        (
            {"target_modules": ["q_proj"]},
            ["targetModules was given as q_proj, and by the files it is k_proj, q_proj"],
        ),
        (
            {"supports_tools": True, "model_type": "llama"},
            [
                'modelType was given as "llama", and by the files it is not there',
                "supportsTools was given as true, and by the files it is false",
            ],
        ),
    ],
)
def test_a_warning_for_each_contradiction(said: dict[str, Any], warnings: list[str]) -> None:
    assert contradictions(said, FOUND) == warnings
