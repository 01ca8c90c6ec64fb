"""How much a replica needs, from the sizes of its model: GPUs and memory, or why it cannot fit. Pure.

The engine takes `GPU_SHARE` of each GPU. Weights, the KV cache of one request of the longest context and
`RESERVE_GIB` for activations have to fit into that; what is left over serves more requests at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from controlplane.node_pools import NodePool

GIB = 1024**3
GPU_SHARE = 0.9
RESERVE_GIB = 1.5
"""On each GPU: activations, the CUDA context and what communication takes."""
LONG_PROMPT_RESERVE_GIB = 3
"""The same where prompts are read in larger steps: there is more of them under way at a time."""
LONG_PROMPT_FACTOR = 2
"""How many times as many GPUs spread long prompts, where the deployment does not say how many."""
CPU_RESERVE_GIB = 3
"""Of an engine on the CPU, beside weights and KV cache: vLLM itself."""
WEIGHT_FACTOR = {"FP8": 0.5, "FP8_MM": 0.5}
"""Of 16-bit weights, where the engine quantises them while it reads them."""
KV_BYTES = {"FP8_KV": 1}
"""Of one number of the KV cache; 2 unless the precision says so."""
SPLITS = (1, 2, 4, 8, 16, 32, 64)
"""How many GPUs a model can be split over, as long as that divides its attention heads."""


class DoesNotFit(Exception):
    """The message has the arithmetic."""


@dataclass(frozen=True)
class ModelSizes:
    """What of a model takes memory."""

    weight_bytes: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    draft: ModelSizes | None = None
    """Of the model that guesses ahead for it, which lies beside it on the same GPUs."""

    @classmethod
    def of(cls, weight_bytes: int, config: Mapping[str, Any]) -> ModelSizes:
        """From a checked config.json; of a model with several parts, the text model's."""
        text = config.get("text_config") or config
        heads = int(text.get("num_attention_heads") or text.get("n_head") or 1)
        width = int(text.get("hidden_size") or text.get("n_embd") or 0)
        return cls(
            weight_bytes,
            layers=int(text.get("num_hidden_layers") or text.get("n_layer") or 0),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or width // heads),
        )

    @property
    def parts(self) -> tuple[ModelSizes, ...]:
        return (self, self.draft) if self.draft else (self,)

    def weights(self, precision: str) -> float:
        """In GiB. The engine quantises the model, and not the one that guesses for it."""
        own = self.weight_bytes * WEIGHT_FACTOR.get(precision, 1.0) / GIB
        return own + (self.draft.weights("") if self.draft else 0.0)

    def cache(self, tokens: int, precision: str, count: int) -> float:
        """Keys and values of so many tokens on so many GPUs, in GiB."""
        return sum(part._kv_bytes(tokens, precision) * part._copies(count) for part in self.parts) / GIB

    def splits_over(self, count: int) -> bool:
        """As the engine has it: fewer KV heads than GPUs are copied, and all get as many."""
        more, fewer = max(count, self.kv_heads), min(count, self.kv_heads)
        return self.heads % count == 0 and more % fewer == 0

    def check_split(self, count: int) -> None:
        for part, whose in zip(self.parts, ("model", "draft model"), strict=False):
            if not part.splits_over(count):
                raise DoesNotFit(
                    f"the {whose}'s {part.heads} attention heads, with {part.kv_heads} of keys and values, "
                    f"cannot be split over {count} GPUs"
                )

    def _kv_bytes(self, tokens: int, precision: str) -> int:
        each = KV_BYTES.get(precision, 2)
        return 2 * self.layers * self.kv_heads * self.head_dim * each * tokens

    def _copies(self, count: int) -> int:
        """Of the KV cache, on so many GPUs."""
        return max(count // self.kv_heads, 1)


def first_fit(pools: Sequence[NodePool], size: Callable[[NodePool], PodSize]) -> tuple[NodePool, PodSize]:
    """The first pool that a replica fits in. Raises DoesNotFit, with the first one's arithmetic."""
    refusals = []
    for pool in pools:
        try:
            return pool, size(pool)
        except DoesNotFit as error:
            refusals.append(error)
    raise refusals[0]


@dataclass(frozen=True)
class PodSize:
    accelerators: int
    """The degree of tensor parallelism as well; 0 on the CPU."""
    cpu: str
    memory: str


def size_pod(
    sizes: ModelSizes,
    pool: NodePool,
    *,
    accelerators: int,
    precision: str,
    tokens: int,
    kv_cache_gib: int,
    check: bool = True,
    long_prompt: bool = False,
) -> PodSize:
    """What one replica asks for in `pool`; `accelerators` 0 takes the fewest that do. Raises DoesNotFit.

    Unless `check`, what was asked for is believed. For `long_prompt` there are twice as many as the fewest.
    """
    if pool.on_cpu:
        return _on_cpu(sizes, pool, kv_cache_gib)
    cache = partial(sizes.cache, tokens, precision)
    weights = sizes.weights(precision)
    chosen = accelerators or _fewest(sizes, pool, weights, cache)
    if check:
        _check_split(sizes, pool, chosen)
        _check_memory(sizes, pool, chosen, weights, cache(chosen), tokens, RESERVE_GIB)
    if long_prompt and not accelerators:
        chosen *= LONG_PROMPT_FACTOR
        _check_split(sizes, pool, chosen, f"the {chosen} that autoTune.longPrompt takes")
    if long_prompt and check:
        _check_memory(sizes, pool, chosen, weights, cache(chosen), tokens, LONG_PROMPT_RESERVE_GIB)
    return PodSize(chosen, times(pool.cpu, chosen), times(pool.host_memory, chosen))


def _on_cpu(sizes: ModelSizes, pool: NodePool, kv_cache_gib: int) -> PodSize:
    needed = sizes.weights("") + kv_cache_gib + CPU_RESERVE_GIB
    asked = float(quantity_bytes(pool.host_memory)) / GIB
    return PodSize(0, pool.cpu, pool.host_memory if asked >= needed else f"{-(-needed // 1):.0f}Gi")


def _fewest(sizes: ModelSizes, pool: NodePool, weights: float, cache: Callable[[int], float]) -> int:
    counts = [count for count in SPLITS if count <= pool.per_node]
    possible = [count for count in counts if all(part.splits_over(count) for part in sizes.parts)]
    fit = (count for count in possible if weights + cache(count) <= _room(pool, count))
    return next(fit, possible[-1])


def _room(pool: NodePool, count: int, reserve: float = RESERVE_GIB) -> float:
    return count * ((pool.memory_gib or 0) * GPU_SHARE - reserve)


def _check_split(sizes: ModelSizes, pool: NodePool, count: int, wanted: str = "") -> None:
    if count > pool.per_node:
        raise DoesNotFit(
            f"a replica runs on one node, and those of the pool {pool.name} have {pool.per_node} GPUs each: "
            f"{wanted or f'acceleratorCount {count}'} cannot be had"
        )
    sizes.check_split(count)


def _check_memory(
    sizes: ModelSizes,
    pool: NodePool,
    count: int,
    weights: float,
    cache: float,
    tokens: int,
    reserve: float,
) -> None:
    room = _room(pool, count, reserve)
    if weights + cache <= room:
        return
    each = f"{pool.memory_gib} GiB × {GPU_SHARE:g} - {reserve:g} GiB"
    draft = f", {sizes.draft.weights(''):.1f} GiB of them the draft model's," if sizes.draft else ""
    others = ", lower maxContextLength, or go without draftModel" if draft else ", or lower maxContextLength"
    raise DoesNotFit(
        f"the model does not fit: {weights:.1f} GiB of weights{draft} and {cache:.1f} GiB of KV cache for "
        f"{tokens} tokens make {weights + cache:.1f} GiB, and {count} × {pool.accelerator_type} has "
        f"{count} × ({each}) = {room:.1f} GiB; ask for more GPUs{others}"
    )


UNITS = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    "k": Decimal(1000),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("KMGTP", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTP", start=1)},
}


def quantity_bytes(quantity: str) -> Decimal:
    """A quantity of Kubernetes as a number; exactly, because 0.009 and 9m are one."""
    number = quantity.rstrip("mkKMGTPi")
    return Decimal(number) * UNITS[quantity[len(number) :]]


def times(quantity: str, count: int) -> str:
    """`count` of them, in the same unit."""
    number = quantity.rstrip("mkKMGTPi")
    product = Decimal(number) * count
    spelled = product.quantize(Decimal(1)) if product == product.to_integral() else product.normalize()
    return f"{spelled:f}{quantity[len(number) :]}"
