"""The plan of a job's memory: its arithmetic against what autograd keeps, and the way it chooses."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.training.model.footprint import (
    GIB,
    DoesNotFit,
    Load,
    ModelShape,
    adapter_parameters,
    find_fit,
    footprint,
)

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SEVENTY_BILLION = ModelShape(
    parameters=70_553_706_496,
    layers=80,
    hidden=8192,
    intermediate=28672,
    attention=8192,
    key_value=1024,
    vocabulary=128256,
)
EIGHT_BILLION = ModelShape(
    parameters=8_030_261_248,
    layers=32,
    hidden=4096,
    intermediate=14336,
    attention=4096,
    key_value=1024,
    vocabulary=128256,
)


def load_of(tokens: int, *, quantized: bool = False) -> Load:
    return Load(tokens, rank=8, targets=TARGETS, weight_bytes=2, quantized=quantized)


def test_sizes_are_read_in_the_spellings_that_families_have() -> None:
    llama = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}
    opt = {"d_model": 64, "n_head": 4, "n_layer": 3, "ffn_dim": 256}
    assert ModelShape.of({**llama, "intermediate_size": 192, "vocab_size": 10}, 7) == ModelShape(
        7, 3, 64, 192, 64, 32, 10
    )
    assert ModelShape.of({**opt, "vocab_size": 10}, 7) == ModelShape(7, 3, 64, 256, 64, 64, 10)


def test_weights_in_four_bits_are_about_a_quarter_of_those_in_sixteen() -> None:
    whole = footprint(SEVENTY_BILLION, load_of(2048)).weights
    four_bits = footprint(SEVENTY_BILLION, load_of(2048, quantized=True)).weights
    assert whole == 2 * SEVENTY_BILLION.parameters
    assert 35 * GIB < four_bits < 38 * GIB


def test_the_adapters_weights_are_counted_as_peft_counts_them() -> None:
    # Rank 8 on all linear layers of Llama 3.1 8B: 20,971,520 trainable parameters.
    assert adapter_parameters(EIGHT_BILLION, TARGETS, 8) == 20_971_520


@pytest.mark.parametrize(
    ("gibibytes", "rows", "way"),
    [
        (180, 4, (4, False)),
        (40, 4, (4, True)),
        (22, 4, (1, True)),
        (26, 4, (2, True)),
    ],
)
def test_the_fastest_way_that_fits_is_taken(gibibytes: int, rows: int, way: tuple[int, bool]) -> None:
    fit = find_fit(EIGHT_BILLION, load_of(rows * 2048), rows, gibibytes * GIB)
    assert (fit.micro_batch_size, fit.load.checkpointing) == way
    assert fit.footprint.total <= gibibytes * GIB


@pytest.mark.parametrize(
    ("shape", "tokens", "gibibytes", "advice"),
    [
        (EIGHT_BILLION, 32768, 30, "a cut-off length of 4096 would fit"),
        (EIGHT_BILLION, 2048, 12, "with QLORA as its tuning method it would fit"),
        (SEVENTY_BILLION, 8192, 4, "a smaller base model, or an accelerator with more memory, is needed"),
    ],
)
def test_what_does_not_fit_is_told_with_the_numbers_and_what_would_help(
    shape: ModelShape, tokens: int, gibibytes: int, advice: str
) -> None:
    with pytest.raises(DoesNotFit) as refused:
        find_fit(shape, load_of(tokens), 1, gibibytes * GIB)
    assert advice in str(refused.value)
    assert f"one row of {tokens} tokens at a time needs " in str(refused.value)
    assert f"and {gibibytes}.0 GiB are there" in str(refused.value)
    assert f"{footprint(shape, load_of(tokens)).weights / GIB:.1f} for the base" in str(refused.value)


@pytest.mark.parametrize("bits", [32, 16])
def test_activations_are_what_autograd_keeps_and_somewhat_more(bits: int, tiny_model: Path) -> None:
    """Never less: a job that was planned must not run out of memory."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if bits == 32 else torch.bfloat16
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype, attn_implementation="sdpa")
    model = get_peft_model(base, LoraConfig(r=8, target_modules=list(TARGETS)))
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.get_base_model().model(torch.randint(0, 300, (2, 100)))

    shape = ModelShape.of(base.config.to_dict(), base.num_parameters())
    planned = footprint(shape, Load(200, 8, TARGETS, bits // 8)).activations
    assert sum(kept.values()) <= planned <= 1.6 * sum(kept.values())
