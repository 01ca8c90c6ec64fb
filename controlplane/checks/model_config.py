"""Reads a base model's config.json: what it is, and whether the engine can serve it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controlplane.checks.problems import ProblemList
from controlplane.checks.wording import shown

CONFIG_FILE = "config.json"
CUSTOM_CODE_KEYS = ("auto_map", "custom_pipelines")
FLOAT_DTYPES = {"float16": "FP16", "bfloat16": "BF16", "float32": "FP16"}
"""Configured dtype → the precision it is served in; single precision is served in half."""

MOST = {
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "num_hidden_layers": 1024,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "head_dim": 1 << 12,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
}
REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
ALIASES = {
    "hidden_size": ("n_embd", "d_model"),
    "intermediate_size": ("n_inner", "ffn_dim"),
    "num_hidden_layers": ("n_layer", "num_layers"),
    "num_attention_heads": ("n_head", "num_heads"),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_seq_len", "seq_length"),
}
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Sizes:
    """The numbers that fix the shapes of the weights."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    tied_embeddings: bool
    attention_bias: bool

    @property
    def attention(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_value(self) -> int:
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class ConfigFacts:
    architecture: str
    model_type: str
    sizes: Sizes
    moe: bool
    precision: str


def read_config(config: dict[str, Any], served: dict[str, bool], problems: ProblemList) -> ConfigFacts | None:
    """The facts of a config.json, or None with the reasons added to `problems`."""
    architecture = _architecture(config, served, problems)
    _refuse_unserved(config, problems)
    sizes = read_sizes(config, problems)
    if architecture is None or sizes is None:
        return None
    text = text_config(config)
    return ConfigFacts(
        architecture=architecture,
        model_type=str(config.get("model_type", "")),
        sizes=sizes,
        moe=any((whole_number(text.get(key)) or 0) > 1 for key in EXPERT_COUNTS),
        precision=_precision(config, problems),
    )


def read_sizes(config: dict[str, Any], problems: ProblemList) -> Sizes | None:
    text = text_config(config)
    numbers = {key: _size(text, key, problems) for key in MOST}
    for key in REQUIRED:
        if numbers[key] is None and _configured(text, key) is None:
            problems.add(CONFIG_FILE, key, "is missing")
    hidden, layers, heads, vocabulary = (numbers[key] or 0 for key in REQUIRED)
    if not (hidden and layers and heads and vocabulary):
        return None
    kv_heads = numbers["num_key_value_heads"] or heads
    if heads % kv_heads:
        problems.add(CONFIG_FILE, "num_key_value_heads", f"is {kv_heads}; it must divide the {heads} heads")
    if not numbers["head_dim"] and hidden % heads:
        problems.add(CONFIG_FILE, "hidden_size", f"is {hidden}; it must be a multiple of the {heads} heads")
    return Sizes(
        hidden=hidden,
        intermediate=numbers["intermediate_size"] or 4 * hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=numbers["head_dim"] or hidden // heads,
        vocabulary=vocabulary,
        context=numbers["max_position_embeddings"] or 0,
        tied_embeddings=_tied(config, text),
        attention_bias=text.get("attention_bias") is True,
    )


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part about the language model, where a model sees pictures too."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def _architecture(config: dict[str, Any], served: dict[str, bool], problems: ProblemList) -> str | None:
    named = config.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        problems.add(CONFIG_FILE, "architectures", f"must be an array of one name, found {shown(named)}")
        return None
    if named[0] not in served:
        problems.add(CONFIG_FILE, "architectures", f"{shown(named[0])} is not served")
        return None
    return named[0]


def _refuse_unserved(config: dict[str, Any], problems: ProblemList) -> None:
    for key in CUSTOM_CODE_KEYS:
        if config.get(key):
            problems.add(CONFIG_FILE, key, "names code of the model's own, which is never run")
    if config.get("quantization_config") is not None:
        quantization = config["quantization_config"]
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        problems.add(
            CONFIG_FILE, "quantization_config", f"quantized weights ({shown(method)}) are not served"
        )


def _configured(text: dict[str, Any], key: str) -> Any:
    return next((text[name] for name in (key, *ALIASES.get(key, ())) if text.get(name) is not None), None)


def _size(text: dict[str, Any], key: str, problems: ProblemList) -> int | None:
    value = _configured(text, key)
    if value is None:
        return None
    number = whole_number(value)
    if number is None or not 1 <= number <= MOST[key]:
        problems.add(CONFIG_FILE, key, f"is {shown(value)}; expected an integer from 1 to {MOST[key]}")
        return None
    return number


def _tied(config: dict[str, Any], text: dict[str, Any]) -> bool:
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    if isinstance(tied, bool):
        return tied
    return str(text.get("model_type", "")).startswith("gemma")


def _precision(config: dict[str, Any], problems: ProblemList) -> str:
    text = text_config(config)
    dtype = next(
        (part[key] for part in (config, text) for key in ("torch_dtype", "dtype") if part.get(key)),
        "bfloat16",
    )
    if not isinstance(dtype, str) or dtype not in FLOAT_DTYPES:
        problems.add(CONFIG_FILE, "dtype", f"is {shown(dtype)}; expected float16, bfloat16 or float32")
        return "BF16"
    return FLOAT_DTYPES[dtype]


def whole_number(value: Any) -> int | None:
    """The value when it is an integer, not a boolean."""
    return value if type(value) is int else None
