"""How much a replica asks for, by the sizes of its model: the truth table, and the arithmetic of refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.node_pools import NodePool
from controlplane.sizing import GIB, DoesNotFit, ModelSizes, PodSize, quantity_bytes, size_pod

H100 = NodePool(
    name="h100",
    accelerator_type="NVIDIA_H100_80GB",
    resource="nvidia.com/gpu",
    memory_gib=80,
    cpu="8",
    host_memory="64Gi",
)
CPU = NodePool(name="cpu", cpu="6", host_memory="8Gi")
EIGHT = ModelSizes(16 * GIB, layers=32, heads=32, kv_heads=8, head_dim=128)
SEVENTY = ModelSizes(140 * GIB, layers=80, heads=64, kv_heads=8, head_dim=128)
TEN = ModelSizes(28 * GIB, layers=40, heads=40, kv_heads=10, head_dim=128)
ONE = ModelSizes(140 * GIB, layers=64, heads=64, kv_heads=1, head_dim=512)
"""On two GPUs each has a copy of the KV cache."""
ODD = ModelSizes(140 * GIB, layers=80, heads=50, kv_heads=10, head_dim=128)
GUESSED = replace(EIGHT, draft=ModelSizes(40 * GIB, layers=32, heads=32, kv_heads=8, head_dim=128))
"""As large a KV cache again, and weights that are never quantised."""
GUESSED_BY_ODD = replace(SEVENTY, draft=ModelSizes(GIB, layers=2, heads=6, kv_heads=2, head_dim=64))

# model, GPUs asked for, precision, tokens → GPUs. One H100 offers 80 × 0.9 - 1.5 = 70.5 GiB.
ROWS = [
    (EIGHT, 0, "", 8192, 1),  # 16 + 1 GiB
    (EIGHT, 2, "", 8192, 2),
    (EIGHT, 0, "", 8192 * 53, 1),  # 16 + 53 GiB
    (EIGHT, 0, "", 8192 * 55, 2),  # 16 + 55 GiB
    (EIGHT, 0, "FP8_KV", 8192 * 55, 1),  # half of the cache
    (SEVENTY, 0, "", 8192, 4),  # 140 + 2.5 GiB are just more than two have
    (SEVENTY, 0, "FP8", 8192, 2),
    (ODD, 0, "FP8", 8192, 2),
    (GUESSED, 0, "", 8192 * 7, 1),  # 16 + 40 + 2 × 7 GiB
    (GUESSED, 0, "", 8192 * 8, 2),
    (GUESSED, 0, "FP8", 8192 * 11, 1),  # 8 + 40 + 2 × 11 GiB
    (GUESSED, 0, "FP8_KV", 8192 * 14, 1),
    (GUESSED_BY_ODD, 0, "FP8", 8192, 2),
]


@pytest.mark.parametrize(("sizes", "asked", "precision", "tokens", "gpus"), ROWS)
def test_the_fewest_gpus_that_hold_weights_and_one_request(
    sizes: ModelSizes, asked: int, precision: str, tokens: int, gpus: int
) -> None:
    found = size_pod(sizes, H100, accelerators=asked, precision=precision, tokens=tokens, kv_cache_gib=1)
    assert found == PodSize(gpus, f"{8 * gpus}", f"{64 * gpus}Gi")


REFUSED = [
    (
        SEVENTY,
        1,
        "the model does not fit: 140.0 GiB of weights and 2.5 GiB of KV cache for 8192 tokens make 142.5 "
        "GiB, and 1 × NVIDIA_H100_80GB has 1 × (80 GiB × 0.9 - 1.5 GiB) = 70.5 GiB; ask for more GPUs, or "
        "lower maxContextLength",
    ),
    (SEVENTY, 16, "those of the pool h100 have 8 GPUs each: acceleratorCount 16 cannot be had"),
    (ODD, 4, "the model's 50 attention heads, with 10 of keys and values, cannot be split over 4 GPUs"),
    (TEN, 4, "the model's 40 attention heads, with 10 of keys and values, cannot be split over 4 GPUs"),
    (ONE, 2, "140.0 GiB of weights and 2.0 GiB of KV cache for 8192 tokens make 142.0 GiB"),
    (ModelSizes(900 * GIB, 80, 64, 8, 128), 0, "8 × NVIDIA_H100_80GB has 8 × "),
    (
        replace(SEVENTY, draft=EIGHT),
        2,
        "156.0 GiB of weights, 16.0 GiB of them the draft model's, and 3.5 GiB of KV cache for 8192 tokens",
    ),
    (replace(SEVENTY, draft=EIGHT), 2, "lower maxContextLength, or go without draftModel"),
    (GUESSED_BY_ODD, 4, "the draft model's 6 attention heads, with 2 of keys and values, cannot be split"),
]


@pytest.mark.parametrize(("sizes", "asked", "said"), REFUSED)
def test_what_cannot_fit_is_refused_with_the_arithmetic(sizes: ModelSizes, asked: int, said: str) -> None:
    with pytest.raises(DoesNotFit) as refused:
        size_pod(sizes, H100, accelerators=asked, precision="", tokens=8192, kv_cache_gib=1)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("memory", "gpus", "found"),
    [
        ("64Gi", 8, "512Gi"),
        ("131072Mi", 8, "1048576Mi"),
        ("67108864Ki", 1, "67108864Ki"),
        ("0.5Gi", 3, "1.5Gi"),
    ],
)
def test_a_replicas_memory_is_in_the_pools_own_unit(memory: str, gpus: int, found: str) -> None:
    pool = H100.model_copy(update={"host_memory": memory})
    sizes = replace(EIGHT, heads=24, kv_heads=24)
    size = size_pod(sizes, pool, accelerators=gpus, precision="", tokens=1, kv_cache_gib=1)
    assert size.memory == found


# model, GPUs asked for, tokens → GPUs, with prompts spread: 80 × 0.9 - 3 = 69 GiB of each.
LONG_ROWS = [
    (EIGHT, 0, 8192, 2),
    (EIGHT, 4, 8192, 4),
    (SEVENTY, 0, 8192, 8),
    (EIGHT, 2, 8192 * 121, 2),  # 16 + 121 GiB
]


@pytest.mark.parametrize(("sizes", "asked", "tokens", "gpus"), LONG_ROWS)
def test_long_prompts_are_spread_over_twice_the_fewest(
    sizes: ModelSizes, asked: int, tokens: int, gpus: int
) -> None:
    found = size_pod(
        sizes, H100, accelerators=asked, precision="", tokens=tokens, kv_cache_gib=1, long_prompt=True
    )
    assert found.accelerators == gpus


HUGE = ModelSizes(300 * GIB, layers=80, heads=64, kv_heads=8, head_dim=128)
NINE = ModelSizes(GIB, layers=2, heads=9, kv_heads=3, head_dim=64)
LONG_REFUSED = [
    (HUGE, 0, True, "those of the pool h100 have 8 GPUs each: the 16 that autoTune.longPrompt takes cannot"),
    (HUGE, 0, False, "the 16 that autoTune.longPrompt takes cannot be had"),
    (NINE, 0, True, "the model's 9 attention heads, with 3 of keys and values, cannot be split over 2 GPUs"),
    (SEVENTY, 2, True, "2 × NVIDIA_H100_80GB has 2 × (80 GiB × 0.9 - 1.5 GiB) = 141.0 GiB"),
    (replace(SEVENTY, weight_bytes=137 * GIB), 2, True, "2 × (80 GiB × 0.9 - 3 GiB) = 138.0 GiB"),
    (replace(HUGE, weight_bytes=900 * GIB), 0, True, "8 × NVIDIA_H100_80GB has 8 × "),
]


@pytest.mark.parametrize(("sizes", "asked", "check", "said"), LONG_REFUSED)
def test_prompts_that_cannot_be_spread_are_refused_with_the_arithmetic(
    sizes: ModelSizes, asked: int, check: bool, said: str
) -> None:
    with pytest.raises(DoesNotFit) as refused:
        size_pod(
            sizes,
            H100,
            accelerators=asked,
            precision="",
            tokens=8192,
            kv_cache_gib=1,
            check=check,
            long_prompt=True,
        )
    assert said in str(refused.value)


def test_who_asks_for_no_check_is_believed() -> None:
    found = size_pod(SEVENTY, H100, accelerators=1, precision="", tokens=8192, kv_cache_gib=1, check=False)
    assert found.accelerators == 1


@pytest.mark.parametrize(("weights", "memory"), [(1, "8Gi"), (4, "8Gi"), (16, "20Gi")])
def test_an_engine_on_the_cpu_gets_memory_for_its_weights_and_its_cache(weights: int, memory: str) -> None:
    sizes = ModelSizes(weights * GIB, 32, 32, 8, 128)
    found = size_pod(sizes, CPU, accelerators=0, precision="", tokens=8192, kv_cache_gib=1)
    assert found == PodSize(0, "6", memory)


def test_sizes_are_read_from_the_config_whatever_it_calls_them() -> None:
    gpt = {"n_layer": 12, "n_head": 12, "n_embd": 768}
    assert ModelSizes.of(1, gpt) == ModelSizes(1, 12, 12, 12, 64)
    llama = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64}
    assert ModelSizes.of(1, {"text_config": llama}) == ModelSizes(1, 2, 8, 2, 8)


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("500m", 0.5),
        ("9m", quantity_bytes("0.009")),
        ("8", 8),
        ("1k", 1000),
        ("64Gi", 64 * 2**30),
        ("0.5Ki", 512),
    ],
)
def test_quantities_are_numbers(quantity: str, number: float) -> None:
    assert quantity_bytes(quantity) == number
