"""A small base model and adapter, made by hand."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

Tensor = tuple[str, list[int], bytes]
"""dtype, shape, bytes"""

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "vocab_size": 10,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ tools | tojson if tools }}"
ADAPTER_CONFIG = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "v_proj"],
    "base_model_name_or_path": "somewhere/base",
    "bias": "none",
    "modules_to_save": None,
}


def ones(*shape: int) -> Tensor:
    count = 1
    for size in shape:
        count *= size
    return "BF16", list(shape), b"\x80\x3f" * count


def safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """A file in the safetensors layout."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def base_tensors() -> dict[str, Tensor]:
    tensors = {
        "model.embed_tokens.weight": ones(10, 8),
        "model.norm.weight": ones(8),
        "lm_head.weight": ones(10, 8),
    }
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        tensors |= {
            prefix + "self_attn.q_proj.weight": ones(8, 8),
            prefix + "self_attn.k_proj.weight": ones(4, 8),
            prefix + "self_attn.v_proj.weight": ones(4, 8),
            prefix + "self_attn.o_proj.weight": ones(8, 8),
            prefix + "mlp.gate_proj.weight": ones(12, 8),
            prefix + "mlp.up_proj.weight": ones(12, 8),
            prefix + "mlp.down_proj.weight": ones(8, 12),
            prefix + "input_layernorm.weight": ones(8),
            prefix + "post_attention_layernorm.weight": ones(8),
        }
    return tensors


def adapter_tensors() -> dict[str, Tensor]:
    tensors = {}
    for layer in range(2):
        prefix = f"base_model.model.model.layers.{layer}.self_attn."
        tensors |= {
            prefix + "q_proj.lora_A.weight": ones(4, 8),
            prefix + "q_proj.lora_B.weight": ones(8, 4),
            prefix + "v_proj.lora_A.weight": ones(4, 8),
            prefix + "v_proj.lora_B.weight": ones(4, 4),
        }
    return tensors
