"""The base model and its adapter, ready to be trained. Nothing here runs code that came with a model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D
from transformers.utils.logging import disable_progress_bar

from workers.training.config import JobSpec, Source
from workers.training.errors import TrainingFailure, one_sentence

FULL_PRECISION_BYTES = 4 * 1024**3
"""On the CPU, weights up to this size are held in 32 bits, which trains better and there is also faster."""
GRADIENT_CHECKPOINTING_PARAMETERS = 1_000_000_000
MAX_THREADS = 16


def set_threads() -> None:
    """As many threads as there are processors for us, unless OMP_NUM_THREADS says otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(MAX_THREADS, len(os.sched_getaffinity(0)))))


def load_tokenizer(folder: Path, name: str) -> Any:
    """The model's fast tokenizer; raises TrainingFailure."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unreadable("tokenizer", name, error) from error
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


def template_tokens(tokenizer: Any) -> dict[str, str]:
    """The special tokens that chat templates know by name: `bos_token`, `eos_token`, …"""
    return {
        name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
    }


def context_length(folder: Path) -> int:
    """The positions that the model was made for; 0 where its configuration does not say."""
    config = json.loads((folder / "config.json").read_text())
    return int(config.get("max_position_embeddings") or 0)


def load_model(spec: JobSpec, folder: Path) -> Any:
    """The base model, on the GPU if there is one; raises TrainingFailure."""
    stored = sum(file.size for file in spec.base_model.files)
    full = not torch.cuda.is_available() and stored <= FULL_PRECISION_BYTES
    options: dict[str, Any] = {"dtype": torch.float32 if full else torch.bfloat16}
    if spec.quantize_base:
        options = {"dtype": torch.bfloat16, "quantization_config": _four_bits()}
    if torch.cuda.is_available():
        options["device_map"] = {"": 0}
    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, attn_implementation="sdpa", **options
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unreadable("weights", spec.base_model.name, error) from error
    return model


def _four_bits() -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def new_adapter(spec: JobSpec, model: Any) -> LoraConfig:
    return LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(spec.lora_target_modules) or linear_layers(model),
        task_type="CAUSAL_LM",
    )


def linear_layers(model: Any) -> list[str]:
    """The names of all linear layers but the output layer, as engines know them: without their paths.

    peft's own "all-linear" keeps the whole paths in models of few layers.
    """
    output = model.get_output_embeddings()
    return sorted(
        {
            path.rpartition(".")[2]
            for path, module in model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D) and module is not output
        }
    )


def open_adapter(model: Any, folder: Path, source: Source) -> Any:
    """The model with an existing adapter, to be trained further; raises TrainingFailure."""
    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingFailure(
            "FAILED_PRECONDITION",
            "WARM_START_UNUSABLE",
            f"the adapter {source.name} does not fit the base model: {one_sentence(error)}",
        ) from error


def wants_gradient_checkpointing(model: Any) -> bool:
    """Recomputing activations pays where memory is short: for large models on a GPU."""
    return torch.cuda.is_available() and model.num_parameters() > GRADIENT_CHECKPOINTING_PARAMETERS


def _unreadable(what: str, name: str, error: Exception) -> TrainingFailure:
    return TrainingFailure(
        "FAILED_PRECONDITION",
        "BASE_MODEL_UNREADABLE",
        f"the {what} of {name} cannot be read: {one_sentence(error)}",
    )
