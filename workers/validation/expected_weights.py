"""The weights that a config.json promises, for the families that are laid out like Llama."""

from __future__ import annotations

from controlplane.checks.model_config import ConfigFacts, Sizes

LLAMA_LIKE = frozenset(
    {
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "GemmaForCausalLM",
        "Gemma2ForCausalLM",
    }
)
FLOATS = frozenset({"F16", "BF16", "F32"})

Shape = tuple[int, ...]


def linear_shapes(sizes: Sizes) -> dict[str, Shape]:
    """(out, in) of a decoder layer's linear weights."""
    return {
        "self_attn.q_proj": (sizes.attention, sizes.hidden),
        "self_attn.k_proj": (sizes.key_value, sizes.hidden),
        "self_attn.v_proj": (sizes.key_value, sizes.hidden),
        "self_attn.o_proj": (sizes.hidden, sizes.attention),
        "mlp.gate_proj": (sizes.intermediate, sizes.hidden),
        "mlp.up_proj": (sizes.intermediate, sizes.hidden),
        "mlp.down_proj": (sizes.hidden, sizes.intermediate),
    }


def expected_weights(facts: ConfigFacts) -> dict[str, Shape] | None:
    """Name → shape of every weight that must be there; None for families laid out otherwise."""
    if facts.architecture not in LLAMA_LIKE:
        return None
    sizes = facts.sizes
    expected: dict[str, Shape] = {
        "model.embed_tokens.weight": (sizes.vocabulary, sizes.hidden),
        "model.norm.weight": (sizes.hidden,),
    }
    if not sizes.tied_embeddings:
        expected["lm_head.weight"] = (sizes.vocabulary, sizes.hidden)
    layer = _layer_weights(facts)
    for number in range(sizes.layers):
        expected.update({f"model.layers.{number}.{name}": shape for name, shape in layer.items()})
    return expected


def _layer_weights(facts: ConfigFacts) -> dict[str, Shape]:
    sizes = facts.sizes
    layer: dict[str, Shape] = {f"{name}.weight": shape for name, shape in linear_shapes(sizes).items()}
    layer["input_layernorm.weight"] = layer["post_attention_layernorm.weight"] = (sizes.hidden,)
    if facts.architecture == "Qwen2ForCausalLM" or sizes.attention_bias:
        layer["self_attn.q_proj.bias"] = (sizes.attention,)
        layer["self_attn.k_proj.bias"] = layer["self_attn.v_proj.bias"] = (sizes.key_value,)
    if facts.architecture == "Qwen3ForCausalLM":
        layer["self_attn.q_norm.weight"] = layer["self_attn.k_norm.weight"] = (sizes.head_dim,)
    if facts.architecture == "Gemma2ForCausalLM":
        layer["pre_feedforward_layernorm.weight"] = layer["post_feedforward_layernorm.weight"] = (
            sizes.hidden,
        )
    return layer
