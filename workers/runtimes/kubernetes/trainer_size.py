"""How much a trainer's pod asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.checks.lora_targets import tunable_modules
from controlplane.node_pools import NodePool, NodePools
from controlplane.sizing import GIB, PodSize, quantity_bytes, times
from workers.runtimes.base import NeverFits, TrainerSpec
from workers.runtimes.kubernetes.manifests import Place
from workers.training.model.footprint import USABLE, Load, ModelShape, footprint

FULL_PRECISION_BYTES = 4 * GIB
"""On the CPU, weights up to this size are held in 32 bits; see `workers.training.model.placement`."""
LIBRARIES_GIB = 2
"""Of each process."""


def place_trainer(spec: TrainerSpec, pools: NodePools) -> Place:
    """The cheapest pool whose nodes can have all of its processes. Raises NeverFits.

    Whether the model fits into its accelerators' memory is for the trainer to say, which knows the texts.
    """
    processes = max(spec.accelerator_count, 1)
    found = pools.pools_for_training()
    for pool in found:
        if pool.on_cpu or processes <= pool.per_node:
            return Place(pools, pool, _size(spec, pool, processes))
    most = max(pool.per_node for pool in found)
    raise NeverFits(
        f"a job trains on one node, and those of the pools for training have {most} GPUs each at most: "
        f"{processes} cannot be had"
    )


def _size(spec: TrainerSpec, pool: NodePool, processes: int) -> PodSize:
    memory = times(pool.host_memory, processes)
    if pool.on_cpu:
        needed = _gib_on_cpu(spec.document, spec.model_facts, processes)
        memory = memory if quantity_bytes(memory) >= needed * GIB else f"{needed}Gi"
    return PodSize(0 if pool.on_cpu else processes, times(pool.cpu, processes), memory)


def _gib_on_cpu(document: Mapping[str, Any], facts: Mapping[str, Any], processes: int) -> int:
    """The least that training takes: one row at a time, layers computed anew on the way back."""
    parameters, config = int(facts.get("parameter_count") or 0), dict(facts.get("config") or {})
    if not parameters or not config:
        return 0
    config |= config.get("text_config") or {}
    stored = sum(int(file["size"]) for file in document["base_model"]["files"])
    quantized = bool(document.get("quantize_base"))
    load = Load(
        tokens=int(document["cutoff_length"]),
        rank=int(document["lora_rank"]),
        targets=tuple(document.get("lora_target_modules") or ())
        or tunable_modules(next(iter(config.get("architectures") or [""]))),
        weight_bytes=4 if stored <= FULL_PRECISION_BYTES and not quantized else 2,
        quantized=quantized,
        checkpointing=True,
    )
    each = footprint(ModelShape.of(config, parameters), load).total / USABLE + LIBRARIES_GIB * GIB
    return -(-int(each * processes) // GIB)
