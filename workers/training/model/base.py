"""The base model and its adapter, ready to be trained. Nothing here runs code that came with a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from transformers.utils.logging import disable_progress_bar

from controlplane.checks.lora_targets import tunable_modules
from workers.training.config import JobSpec, Source
from workers.training.errors import TrainingFailure, one_sentence
from workers.training.examples.tokenizer import unreadable
from workers.training.model.divided import check_divided, division
from workers.training.model.placement import attention_kernel, precision
from workers.training.running.ranks import Rank

MAX_THREADS = 16


def set_threads() -> None:
    """As many threads as there are processors for us, unless OMP_NUM_THREADS says otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(MAX_THREADS, len(os.sched_getaffinity(0)))))


def load_model(spec: JobSpec, folder: Path, rank: Rank, divided: bool = False) -> Any:
    """The base model, on the process's GPU if there is one; raises TrainingFailure.

    Divided: each process reads and keeps its part of every layer.
    """
    on_gpu = torch.cuda.is_available()
    dtype = precision(spec, on_gpu)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention_kernel(on_gpu)}
    if spec.quantize_base:
        options["quantization_config"] = _four_bits()
    if divided:
        options |= division(rank)
    elif on_gpu:
        options["device_map"] = {"": rank.number}
    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise unreadable("weights", spec.base_model.name, error) from error
    if divided:
        check_divided(model, spec.base_model.name, rank)
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
        lora_dropout=spec.lora_dropout,
        bias="none",
        target_modules=list(spec.lora_target_modules) or tunable_layers(model, spec.base_model.name),
        task_type="CAUSAL_LM",
    )


def tunable_layers(model: Any, name: str) -> list[str]:
    """The linear layers of this model that the engine serves adapted; raises TrainingFailure for none."""
    present = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }
    architecture = next(iter(model.config.architectures or []), "")
    if found := [layer for layer in tunable_modules(architecture) if layer in present]:
        return found
    raise TrainingFailure(
        "FAILED_PRECONDITION", "NOT_TUNABLE", f"{name} ({architecture}) has no layer that can be adapted"
    )


def open_adapter(model: Any, folder: Path, source: Source, dropout: float) -> Any:
    """The model with an existing adapter, to be trained further; raises TrainingFailure."""
    try:
        config = LoraConfig.from_pretrained(folder)
        config.lora_dropout = dropout
        return PeftModel.from_pretrained(model, folder, is_trainable=True, config=config)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingFailure(
            "FAILED_PRECONDITION",
            "WARM_START_UNUSABLE",
            f"the adapter {source.name} does not fit the base model: {one_sentence(error)}",
        ) from error
