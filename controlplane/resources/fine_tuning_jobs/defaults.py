"""Default hyper-parameters per base model; whatever the user sets wins."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Defaults:
    batch_size: int
    lora_rank: int
    epochs: float
    learning_rate: float
    cutoff_length: int


# By the model's id; the values are those that users of the original API expect.
BY_MODEL_ID = {
    "llama-v3p2-1b-instruct": Defaults(32, 4, 1, 1e-4, 16384),
    "llama-v3p2-3b-instruct": Defaults(32, 4, 1, 1e-4, 16384),
    "llama-v3p1-70b-instruct": Defaults(8, 4, 1, 2e-5, 8192),
    "llama-v3p1-8b-instruct": Defaults(16, 8, 1, 1e-4, 8192),
    "llama-v3-70b-instruct-hf": Defaults(8, 4, 1, 2e-5, 8192),
    "llama-v3-8b-instruct-hf": Defaults(16, 8, 1, 1e-4, 8192),
    "mixtral-8x7b-instruct-hf": Defaults(16, 8, 1, 1e-4, 32768),
    "mixtral-8x22b-instruct-hf": Defaults(16, 8, 1, 1e-4, 8192),
    "mixtral-8x22b-hf": Defaults(8, 8, 1, 1e-4, 8192),
    "mixtral-8x7b": Defaults(16, 8, 1, 1e-4, 8192),
    "mistral-7b-instruct-v0p2": Defaults(16, 8, 1, 1e-4, 4096),
    "mistral-7b": Defaults(16, 8, 1, 1e-4, 4096),
    "code-qwen-1p5-7b": Defaults(16, 8, 1, 3e-4, 65536),
    "deepseek-coder-v2-lite-base": Defaults(16, 8, 1, 3e-4, 16384),
    "deepseek-coder-7b-base": Defaults(16, 8, 1, 3e-4, 16384),
    "deepseek-coder-1b-base": Defaults(16, 8, 1, 3e-4, 16384),
    "codegemma-7b": Defaults(16, 8, 1, 3e-4, 8192),
    "codegemma-2b": Defaults(16, 8, 1, 3e-4, 8192),
    "starcoder2-15b": Defaults(16, 8, 1, 1e-4, 16384),
    "starcoder2-7b": Defaults(16, 8, 1, 1e-4, 16384),
    "starcoder2-3b": Defaults(16, 8, 1, 1e-4, 16384),
    "stablecode-3b": Defaults(16, 8, 1, 3e-4, 16384),
    "qwen2-72b-instruct": Defaults(8, 8, 1, 3e-4, 16384),
}

# Sizes from which a model counts as large: fewer rows a step and a smaller learning rate.
LARGE_PARAMETER_COUNT = 40_000_000_000
LARGE = Defaults(8, 8, 1, 2e-5, 8192)
OTHER = Defaults(16, 8, 1, 1e-4, 8192)


def defaults_for(model_id: str, parameter_count: int, context_length: int) -> Defaults:
    """The model's own row, or one by its size; the cut-off is never more than the context length."""
    found = BY_MODEL_ID.get(model_id) or (LARGE if parameter_count >= LARGE_PARAMETER_COUNT else OTHER)
    cutoff = min(found.cutoff_length, context_length) if context_length else found.cutoff_length
    return Defaults(found.batch_size, found.lora_rank, found.epochs, found.learning_rate, cutoff)
