"""The plan of a job's memory: its arithmetic against what autograd keeps, and the way it chooses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from workers.training.model.footprint import (
    GIB,
    DoesNotFit,
    Load,
    ModelShape,
    Way,
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


def test_the_way_of_an_earlier_attempt_is_kept_while_it_fits() -> None:
    kept = Way(2, checkpointing=True, shards=1)
    for gibibytes, way in ((180, kept), (26, kept), (22, Way(1, checkpointing=True, shards=1))):
        fit = find_fit(EIGHT_BILLION, load_of(4 * 2048), 4, gibibytes * GIB, kept=kept)
        assert (fit.way, fit.load.tokens) == (way, way.micro_batch_size * 2048)


@pytest.mark.parametrize(
    ("shape", "gibibytes", "processes", "quantized", "way"),
    [
        # One has room for it.
        (EIGHT_BILLION, 80, 1, False, (4, True, 1)),
        # So has each of several: they share the rows, not the base.
        (EIGHT_BILLION, 140, 2, False, (4, False, 1)),
        (EIGHT_BILLION, 80, 8, False, (4, True, 1)),
        (EIGHT_BILLION, 24, 8, False, (1, True, 1)),
        # None has room for the whole, and each for its part, with as many rows as then fit.
        (EIGHT_BILLION, 16, 2, False, (1, True, 2)),
        (EIGHT_BILLION, 16, 4, False, (2, True, 4)),
        (SEVENTY_BILLION, 40, 8, False, (1, True, 8)),
        (SEVENTY_BILLION, 80, 4, False, (4, True, 4)),
        (SEVENTY_BILLION, 140, 2, False, (4, True, 2)),
        # In four bits it fits whole, or not at all.
        (SEVENTY_BILLION, 80, 1, True, (4, True, 1)),
        (SEVENTY_BILLION, 80, 4, True, (4, True, 1)),
        (SEVENTY_BILLION, 40, 4, True, "with LORA as its tuning method, divided among 8 accelerators"),
        # Too large for what the job has, not for what it could have.
        (EIGHT_BILLION, 16, 1, False, "with QLORA as its tuning method or divided among 2 accelerators"),
        (SEVENTY_BILLION, 80, 2, False, "with QLORA as its tuning method or divided among 4 accelerators"),
        (SEVENTY_BILLION, 24, 1, False, "; divided among 32 accelerators"),
        # Too large for all that may be asked for.
        (SEVENTY_BILLION, 16, 8, False, "divided among 32 accelerators it would still need 19.3 GiB"),
    ],
)
def test_a_base_is_whole_where_it_fits_divided_where_it_must_be_and_refused_else(
    shape: ModelShape, gibibytes: int, processes: int, quantized: bool, way: tuple[int, bool, int] | str
) -> None:
    load, others = load_of(4 * 2048, quantized=quantized), (2, 4, 8, 16, 32)
    if isinstance(way, str):
        with pytest.raises(DoesNotFit) as refused:
            find_fit(shape, load, 4, gibibytes * GIB, GIB, processes, others)
        assert way in str(refused.value)
        assert (f"divided among {processes} processes" in str(refused.value)) == (
            processes > 1 and not quantized
        )
        return
    fit = find_fit(shape, load, 4, gibibytes * GIB, GIB, processes, others)
    assert (fit.micro_batch_size, fit.load.checkpointing, fit.load.shards) == way
    assert fit.is_divided == (fit.load.shards > 1)
    assert fit.footprint.total <= gibibytes * GIB


def test_a_part_of_the_base_is_counted_with_the_layers_that_are_put_together() -> None:
    whole, part = (footprint(SEVENTY_BILLION, replace(load_of(2048), shards=shards)) for shards in (1, 4))
    assert part.weights == whole.weights // 4
    assert whole.gathered == 0
    # The output layer, and three of eighty layers of 1.7 GB each.
    assert part.gathered == pytest.approx(2 * 128256 * 8192 + 3 * 1.737e9, rel=0.01)
    assert "(32.9 for its part of the base + 6.8 for the layers at work + 1.5 for the adapter" in str(part)
    assert "at work" not in str(whole)


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
