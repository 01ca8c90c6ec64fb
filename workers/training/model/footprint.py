"""How much memory a job's processes need, from the sizes of its model: plain arithmetic.

Counts what training with a frozen base keeps: its weights, the adapter with its gradients and AdamW's two
moments, what every layer keeps for the way back, and the logits of the tokens that are compared at once.
Where the base is divided among processes, each keeps its part, and what it puts together of the others'.
`tests/training/test_footprint.py` measures what autograd really keeps and compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

GIB = 1024**3
NF4_BYTES = 0.516
"""A weight in NF4 with doubly quantized constants: 4 bits and 0.127 (QLoRA, Dettmers et al. 2023, §3)."""
ADAPTER_BYTES = 16
"""A weight of an adapter in 32 bits: itself, its gradient and two moments."""
LOGITS_AT_ONCE = 8192
"""Tokens whose logits the trainer holds at a time."""
USABLE = 0.92
"""Of a device's memory; the allocator cannot use all that is free."""
LAYERS_AT_ONCE = 3
"""That a process has whole where it keeps parts: one at work, the next, and one on its way into its place."""
NEEDED = "a smaller base model, or an accelerator with more memory, is needed"


@dataclass(frozen=True)
class ModelShape:
    """The numbers that fix what a decoder of the usual kind takes."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    attention: int
    """Width of all heads' queries together."""
    key_value: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any], parameters: int) -> ModelShape:
        """From config.json, in any of the spellings that families have."""
        hidden = _first(config, "hidden_size", "n_embd", "d_model")
        heads = _first(config, "num_attention_heads", "n_head") or 1
        head_dim = config.get("head_dim") or hidden // heads
        return cls(
            parameters=parameters,
            layers=_first(config, "num_hidden_layers", "n_layer"),
            hidden=hidden,
            intermediate=_first(config, "intermediate_size", "ffn_dim", "n_inner") or 4 * hidden,
            attention=heads * head_dim,
            key_value=(config.get("num_key_value_heads") or heads) * head_dim,
            vocabulary=_first(config, "vocab_size"),
        )

    @property
    def layer_parameters(self) -> int:
        """Of the linear layers of all decoder layers, the ones that are quantized."""
        return sum(self.width(name) for name in LAYER_INPUTS) * self.layers if self.layers else 0

    def width(self, name: str) -> int:
        """Input × output of a linear layer."""
        inputs, outputs = self.sizes(name)
        return inputs * outputs

    def sizes(self, name: str) -> tuple[int, int]:
        inputs, outputs = LAYER_INPUTS.get(name, ("hidden", "hidden"))
        return getattr(self, inputs), getattr(self, outputs)


LAYER_INPUTS = {
    "q_proj": ("hidden", "attention"),
    "k_proj": ("hidden", "key_value"),
    "v_proj": ("hidden", "key_value"),
    "o_proj": ("attention", "hidden"),
    "gate_proj": ("hidden", "intermediate"),
    "up_proj": ("hidden", "intermediate"),
    "down_proj": ("intermediate", "hidden"),
}
"""From what to what the linear layers go."""


@dataclass(frozen=True)
class Load:
    """What a job asks of each of its processes."""

    tokens: int
    """Of a micro batch, padding included."""
    rank: int
    targets: tuple[str, ...]
    weight_bytes: int
    """Of a base weight: 4 or 2."""
    quantized: bool = False
    mixed: bool = False
    """Adapters compute in 16 bits, as they do on accelerators."""
    checkpointing: bool = False
    """Keep the input of each layer only, and compute the rest anew on the way back."""
    shards: int = 1
    """Parts that the base is divided into; a process keeps one of them."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one process."""

    weights: int
    adapter: int
    activations: int
    logits: int
    fixed: int
    """Of the libraries and the device's own context."""
    gathered: int = 0
    """Of layers that are put together while they are at work, where a process keeps a part of each."""

    @property
    def total(self) -> int:
        kept = self.weights + self.gathered + self.adapter
        return kept + self.activations + self.logits + self.fixed

    def __str__(self) -> str:
        parts = {"the base": self.weights}
        if self.gathered:
            parts = {"its part of the base": self.weights, "the layers at work": self.gathered}
        parts |= {"the adapter": self.adapter, "activations": self.activations}
        parts |= {"logits": self.logits, "libraries": self.fixed}
        named = " + ".join(f"{amount / GIB:.1f} for {part}" for part, amount in parts.items())
        return f"{self.total / GIB:.1f} GiB ({named})"


def footprint(shape: ModelShape, load: Load, fixed: int = GIB) -> Footprint:
    return Footprint(
        weights=_weights(shape, load) // load.shards,
        adapter=adapter_parameters(shape, load.targets, load.rank) * ADAPTER_BYTES,
        activations=_activations(shape, load),
        # Logits in 32 bits, their exponentials, and the gradient.
        logits=min(load.tokens, LOGITS_AT_ONCE) * shape.vocabulary * 4 * 2,
        fixed=fixed,
        gathered=_gathered(shape, load) if load.shards > 1 else 0,
    )


def adapter_parameters(shape: ModelShape, targets: Sequence[str], rank: int) -> int:
    return shape.layers * rank * sum(sum(shape.sizes(name)) for name in targets)


def _weights(shape: ModelShape, load: Load) -> int:
    if not load.quantized:
        return shape.parameters * load.weight_bytes
    linear = min(shape.layer_parameters, shape.parameters)
    return int(linear * NF4_BYTES) + (shape.parameters - linear) * load.weight_bytes


def _gathered(shape: ModelShape, load: Load) -> int:
    """The output layer stays whole from the way forward to the way back; of the others there are a few."""
    outer = shape.vocabulary * shape.hidden
    a_layer = (shape.parameters - outer) // max(1, shape.layers)
    return (outer + min(LAYERS_AT_ONCE, shape.layers) * a_layer) * load.weight_bytes


def _activations(shape: ModelShape, load: Load) -> int:
    kept = load.tokens * _kept_by_a_layer(shape, load)
    if not load.checkpointing:
        return shape.layers * kept
    return kept + shape.layers * load.tokens * shape.hidden * load.weight_bytes


def _kept_by_a_layer(shape: ModelShape, load: Load) -> int:
    """Bytes a token: two norms in 32 bits and what they give, queries, keys and values before and after their
    turn, attention's result, the gate, its activation and both products; and what each adapter adds.
    """
    width = load.weight_bytes
    norms = 2 * shape.hidden * (4 + 2 * width)
    attention = width * (2 * shape.attention + 2 * shape.key_value + 2 * shape.attention)
    mlp = width * 4 * shape.intermediate
    # Where the base has 16 bits, each adapter keeps its input once more, in the bits that it computes in.
    copies = sum(shape.sizes(name)[0] for name in load.targets) * (2 if load.mixed else 4)
    copies = copies if width < 4 else 0
    return norms + attention + mlp + copies + 4 * load.rank * len(load.targets)


@dataclass(frozen=True)
class Way:
    """How rows go through the model. Another way sums in another order."""

    micro_batch_size: int
    checkpointing: bool
    shards: int


@dataclass(frozen=True)
class Fit:
    """How a job is to run on the devices there are."""

    load: Load
    micro_batch_size: int
    footprint: Footprint

    @property
    def is_divided(self) -> bool:
        """Each process keeps a part of the base, and all go through the layers in step."""
        return self.load.shards > 1

    @property
    def way(self) -> Way:
        return Way(self.micro_batch_size, self.load.checkpointing, self.load.shards)


class DoesNotFit(Exception):
    """No way to run it fits. The message has the arithmetic, and what would help."""


def find_fit(
    shape: ModelShape,
    load: Load,
    micro_batch_size: int,
    available: int,
    fixed: int = GIB,
    processes: int = 1,
    others: Sequence[int] = (),
    kept: Way | None = None,
) -> Fit:
    """The first way that fits into `available` bytes a process. Raises DoesNotFit.

    `load` is of a micro batch of `micro_batch_size` rows. The base is divided among the job's `processes`
    only where it does not fit whole. `others`: how many the job could have had as well, for the advice.
    `kept`: the way of an earlier attempt, which is taken before all others.
    """
    room = int(available * USABLE)
    for rows, tried in _ways(load, micro_batch_size, processes, kept):
        need = footprint(shape, tried, fixed)
        if need.total <= room:
            return Fit(tried, rows, need)
    divided = f", with the base divided among {tried.shards} processes," if tried.shards > 1 else ""
    raise DoesNotFit(
        f"one row of {tried.tokens} tokens at a time{divided} needs {need}, and {available / GIB:.1f} GiB "
        f"are there, of which {room / GIB:.1f} can be used; {_advice(shape, tried, room, fixed, others)}"
    )


def _ways(load: Load, micro_batch_size: int, processes: int, kept: Way | None) -> Iterator[tuple[int, Load]]:
    """From the fastest on: as it is, with checkpointing, and with ever fewer rows; then the same with parts.

    Fewer rows divide those of a micro batch, so that a step stays what it is. Four bits are not divided.
    """
    a_row = load.tokens // micro_batch_size
    if kept:
        rows = kept.micro_batch_size
        again = replace(load, checkpointing=kept.checkpointing, shards=kept.shards)
        yield rows, replace(again, tokens=a_row * rows)
    for shards in sorted({load.shards, load.shards if load.quantized else processes}):
        yield micro_batch_size, replace(load, shards=shards)
        for rows in range(micro_batch_size, 0, -1):
            if micro_batch_size % rows == 0:
                yield rows, replace(load, tokens=a_row * rows, checkpointing=True, shards=shards)


def _advice(shape: ModelShape, load: Load, room: int, fixed: int, others: Sequence[int]) -> str:
    """What would make it fit, the least change first."""

    def fits(**changes: Any) -> bool:
        return footprint(shape, replace(load, **changes), fixed).total <= room

    for tokens in (load.tokens // 2, load.tokens // 4, load.tokens // 8):
        if tokens and fits(tokens=tokens):
            return f"a cut-off length of {tokens} would fit"
    found = ["with QLORA as its tuning method"] if fits(quantized=True, shards=1) else []
    if count := next((count for count in others if fits(quantized=False, shards=count)), 0):
        method = "with LORA as its tuning method, " if load.quantized else ""
        found.append(f"{method}divided among {count} accelerators (acceleratorCount)")
    if found:
        return f"{' or '.join(found)} it would fit"
    if others:
        most = footprint(shape, replace(load, quantized=False, shards=max(others)), fixed)
        return f"divided among {max(others)} accelerators it would still need {most}; {NEEDED}"
    return NEEDED


def _first(config: Mapping[str, Any], *names: str) -> int:
    return next((int(config[name]) for name in names if config.get(name)), 0)
