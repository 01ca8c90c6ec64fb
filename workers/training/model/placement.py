"""Where and how a job's model runs: precision, kernels and the way that fits into the memory there is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from controlplane.checks.lora_targets import tunable_modules
from workers.runtimes.node_memory import memory_now
from workers.training.config import MOST_PROCESSES, JobSpec
from workers.training.errors import TrainingFailure
from workers.training.model.footprint import GIB, DoesNotFit, Fit, Load, ModelShape, Way, find_fit

FULL_PRECISION_BYTES = 4 * 1024**3
"""On the CPU, weights up to this size are held in 32 bits, which trains better and there is also faster."""
FIXED_ON_GPU = GIB
FIXED_ON_CPU = GIB // 4
"""What a process has taken already when it looks is not counted again."""
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Node:
    """What a process of the job has to itself."""

    on_gpu: bool
    available: int
    """Bytes: of its accelerator, or its share of the machine's."""

    @classmethod
    def here(cls, processes: int) -> Node:
        if torch.cuda.is_available():
            sizes = [
                torch.cuda.get_device_properties(number).total_memory
                for number in range(torch.cuda.device_count())
            ]
            if len(sizes) < processes:
                raise TrainingFailure(
                    "RESOURCE_EXHAUSTED",  # Another node may have more.
                    "TOO_FEW_ACCELERATORS",
                    f"the job is to run on {processes} accelerators, and its node gave it {len(sizes)}",
                )
            return cls(True, min(sizes[:processes]))
        return cls(False, available_memory() // processes)


def available_memory() -> int:
    """Bytes that this machine, or the container that we are in, can still give."""
    return memory_now(cgroup=CGROUP)["available"]


def precision(spec: JobSpec, on_gpu: bool) -> torch.dtype:
    """Of the base model's weights or, of those in four bits, what they are computed in."""
    full = not on_gpu and stored_bytes(spec) <= FULL_PRECISION_BYTES and not spec.quantize_base
    return torch.float32 if full else torch.bfloat16


def attention_kernel(on_gpu: bool) -> str:
    return "flash_attention_2" if on_gpu and is_flash_attn_2_available() else "sdpa"


def place_job(
    spec: JobSpec, base: Path, micro_batch_size: int, longest: int, node: Node, kept: Way | None = None
) -> Fit:
    """How the job runs in the node's memory; raises TrainingFailure DOES_NOT_FIT with the numbers.

    `longest`: tokens of a row, all the texts of it that are in memory together. `kept`: how an earlier
    attempt ran.
    """
    config = json.loads((base / "config.json").read_text())
    config |= config.get("text_config") or {}
    load = Load(
        tokens=micro_batch_size * longest,
        rank=spec.lora_rank,
        targets=spec.lora_target_modules or tunable_modules(next(iter(config.get("architectures") or [""]))),
        weight_bytes=precision(spec, node.on_gpu).itemsize,
        quantized=spec.quantize_base,
        mixed=node.on_gpu,
        shards=spec.processes if spec.divide_base else 1,
    )
    fixed = FIXED_ON_GPU if node.on_gpu else FIXED_ON_CPU
    shape = ModelShape.of(config, parameter_count(spec, config))
    others = shared_by(spec) if node.on_gpu else []  # A CPU's memory does not grow with their number.
    try:
        return find_fit(shape, load, micro_batch_size, node.available, fixed, spec.processes, others, kept)
    except DoesNotFit as problem:
        what = "accelerator" if node.on_gpu else "process on the CPU"
        raise TrainingFailure(
            "RESOURCE_EXHAUSTED",
            "DOES_NOT_FIT",
            f"{spec.base_model.name} cannot be tuned on this node's memory: for each {what}, {problem}",
        ) from None


def shared_by(spec: JobSpec) -> list[int]:
    """How many processes the job could ask for: they share its batches evenly."""
    a_micro_batch = max(1, spec.micro_batch_size)
    return [
        count
        for count in range(max(2, spec.processes), MOST_PROCESSES + 1)
        if spec.batch_size % (count * a_micro_batch) == 0
    ]


def parameter_count(spec: JobSpec, config: dict[str, Any]) -> int:
    """By the size of the weights' files: closer than a formula, for any family."""
    named = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return stored_bytes(spec) // getattr(torch, named, torch.float32).itemsize


def stored_bytes(spec: JobSpec) -> int:
    """Of the weights' files. Of a model that comes in both formats only one is read."""
    sizes = dict.fromkeys((".safetensors", ".bin"), 0)
    for file in spec.base_model.files:
        if (suffix := Path(file.name).suffix) in sizes:
            sizes[suffix] += file.size
    return sizes[".safetensors"] or sizes[".bin"]
