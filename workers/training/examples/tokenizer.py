"""The base model's tokenizer and what its small files say. Needs no torch: this is read without a GPU too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from controlplane.checks.model_config import Sizes, read_sizes
from controlplane.checks.problems import ProblemList
from workers.training.errors import TrainingFailure, one_sentence


def load_tokenizer(folder: Path, name: str) -> Any:
    """The model's fast tokenizer; raises TrainingFailure."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise unreadable("tokenizer", name, error) from error
    if not tokenizer.is_fast:
        raise TrainingFailure(
            "FAILED_PRECONDITION", "NO_FAST_TOKENIZER", f"{name} has no tokenizer.json, which training needs"
        )
    return tokenizer


def stop_token_ids(folder: Path, tokenizer: Any) -> set[int]:
    """The tokens at which the engine stops: of the tokenizer and of the model's generation settings."""
    found = {tokenizer.eos_token_id}
    for file in ("config.json", "generation_config.json"):
        if (folder / file).exists():
            ids = json.loads((folder / file).read_text()).get("eos_token_id")
            found |= set(ids) if isinstance(ids, list) else {ids}
    return {number for number in found if isinstance(number, int)}


def context_length(folder: Path) -> int:
    """The positions that the model was made for; 0 where its configuration does not say."""
    sizes = _sizes(folder)
    return sizes.context if sizes else 0


def model_type(folder: Path) -> str:
    """The family of the model, in the words of its configuration."""
    return str(json.loads((folder / "config.json").read_text()).get("model_type") or "")


def vocabulary_size(folder: Path) -> int:
    """The tokens that the model has weights for; 0 where its configuration does not say."""
    sizes = _sizes(folder)
    return sizes.vocabulary if sizes else 0


def _sizes(folder: Path) -> Sizes | None:
    return read_sizes(json.loads((folder / "config.json").read_text()), ProblemList())


def unreadable(what: str, name: str, error: Exception) -> TrainingFailure:
    return TrainingFailure(
        "FAILED_PRECONDITION",
        "BASE_MODEL_UNREADABLE",
        f"the {what} of {name} cannot be read: {one_sentence(error)}",
    )
