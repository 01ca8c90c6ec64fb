"""Reads a LoRA adapter's adapter_config.json: its rank and targets, and whether the engine can serve it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from controlplane.checks.model_config import whole_number
from controlplane.checks.problems import ProblemList
from controlplane.checks.wording import listed, shown

ADAPTER_CONFIG = "adapter_config.json"
MAX_RANK = 64

MODULES = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "gate_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "down_proj": "mlp.down_proj",
}
MIXTRAL_MODULES = frozenset({"w1", "w2", "w3", "block_sparse_moe.gate"})

UNSERVED = {
    "use_dora": "DoRA adapters are not served",
    "use_qalora": "QALoRA adapters are not served",
    "use_bdlora": "block-diagonal LoRA adapters are not served",
    "lora_bias": "adapters with biases are not served",
    "modules_to_save": "adapters that replace whole modules are not served",
    "trainable_token_indices": "adapters that replace token embeddings are not served",
    "target_parameters": "adapters of bare parameters are not served",
    "alora_invocation_tokens": "activated LoRA adapters are not served",
    "layer_replication": "adapters that copy layers are not served",
    "megatron_config": "adapters made for Megatron are not served",
    "fan_in_fan_out": "adapters of transposed layers are not served",
    "rank_pattern": "every module must have the rank r",
    "alpha_pattern": "every module must have the same lora_alpha",
}
PLAIN_INITIAL_WEIGHTS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
"""Ways to start training that leave the base as it was."""


@dataclass(frozen=True)
class AdapterConfig:
    r: int
    lora_alpha: float
    target_modules: list[str]
    base_model_name: str


def read_adapter_config(config: dict[str, Any], max_rank: int, problems: ProblemList) -> AdapterConfig | None:
    """The facts of an adapter_config.json, or None with the reasons added to `problems`."""
    before = problems.count
    if config.get("peft_type") != "LORA":
        problems.add(ADAPTER_CONFIG, "peft_type", f"is {shown(config.get('peft_type'))}; expected LORA")
    for key, reason in UNSERVED.items():
        if config.get(key):
            problems.add(ADAPTER_CONFIG, key, reason)
    if config.get("bias", "none") != "none":
        problems.add(
            ADAPTER_CONFIG, "bias", f"is {shown(config['bias'])}; adapters with biases are not served"
        )
    initial = config.get("init_lora_weights", True)
    if isinstance(initial, str) and initial.lower() not in PLAIN_INITIAL_WEIGHTS:
        problems.add(ADAPTER_CONFIG, "init_lora_weights", f"{shown(initial)} changes the base's own weights")
    rank = whole_number(config.get("r"))
    if rank is None or not 1 <= rank <= max_rank:
        problems.add(
            ADAPTER_CONFIG, "r", f"is {shown(config.get('r'))}; expected an integer from 1 to {max_rank}"
        )
    alpha = _alpha(config.get("lora_alpha"), problems)
    targets = _target_modules(config.get("target_modules"), problems)
    if problems.count > before or rank is None or alpha is None:
        return None
    return AdapterConfig(rank, alpha, targets, _base_model_name(config))


def _alpha(value: Any, problems: ProblemList) -> float | None:
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        problems.add(ADAPTER_CONFIG, "lora_alpha", f"is {shown(value)}; expected a number above 0")
        return None
    return float(value)


def _target_modules(value: Any, problems: ProblemList) -> list[str]:
    """The last parts of the named modules; a name may carry a path before it."""
    if not isinstance(value, list) or not value or any(not isinstance(item, str) for item in value):
        problems.add(
            ADAPTER_CONFIG, "target_modules", f"must be an array of module names, found {shown(value)}"
        )
        return []
    names = {name if name in MIXTRAL_MODULES else name.rpartition(".")[2] for name in value}
    unknown = sorted(names - MODULES.keys() - MIXTRAL_MODULES)
    if unknown:
        problems.add(
            ADAPTER_CONFIG,
            "target_modules",
            f"{listed(unknown)} cannot be adapted; allowed are {', '.join(MODULES)}, w1, w2, w3 and "
            "block_sparse_moe.gate",
        )
    return sorted(names)


def _base_model_name(config: dict[str, Any]) -> str:
    name = config.get("base_model_name_or_path")
    return name if isinstance(name, str) else ""
