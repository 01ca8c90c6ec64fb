"""What a base model's small files say, in the ways in which families write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workers.training.examples.tokenizer import context_length, vocabulary_size

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 320}
TEXT = {**SHAPE, "max_position_embeddings": 256}
OLD = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 320, "n_positions": 256}


@pytest.mark.parametrize(
    ("config", "context", "vocabulary"),
    [
        (TEXT, 256, 320),
        (OLD, 256, 320),
        (SHAPE, 0, 320),
        # A model that sees pictures too: the limits are those of the part that reads text.
        ({"text_config": TEXT, "vision_config": {"max_position_embeddings": 16}}, 256, 320),
        ({"text_config": TEXT, "vocab_size": 400, "max_position_embeddings": 8}, 256, 320),
        ({}, 0, 0),
    ],
)
def test_how_much_a_model_reads_at_once(
    tmp_path: Path, config: dict[str, Any], context: int, vocabulary: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert (context_length(tmp_path), vocabulary_size(tmp_path)) == (context, vocabulary)
