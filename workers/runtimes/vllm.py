"""What is vLLM's own: its command line, and what its last words mean."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from controlplane.checks.architectures import EMBED, GENERATE, SCORE
from workers.runtimes.base import ReplicaSpec

GPU_SERVER = "vllm.entrypoints.openai.api_server"
CPU_SERVER = "workers.runtimes.cpu_server"
STRUCTURED_OUTPUTS = '{"backend": "xgrammar"}'
"""The gateway writes its grammars for this one; left to itself vLLM tries others when one refuses."""
SAMPLING_PLUGIN = "workers.engine_plugins.sampling:SurpriseSampling"
DRAIN_SECONDS = 60
"""How long an engine that is told to stop may go on with the answers it has begun."""
REQUESTS_ON_GPU = 256
REQUESTS_ON_CPU = 32
"""How many requests an engine answers at a time; further ones wait in it."""
LONG_PROMPT_STEP = 16384
"""How many tokens an engine reads in one step where prompts are long: as many as vLLM by itself takes on the
largest GPUs (2048 under 70 GiB and on A100s, 8192 on H100s, 16384 from 160 GiB on). Prompts need fewer steps,
and answers that are under way wait longer for each."""
LORA_RANKS = (8, 16, 32, 64)
"""The ranks that the engine can be built for, of those that addons may have."""

PRECISION_FLAGS: dict[str, tuple[str, ...]] = {
    "": (),
    "PRECISION_UNSPECIFIED": (),
    # The API's word for 16 bits; the engine keeps the kind that the weights have.
    "FP16": (),
    "BF16": ("--dtype", "bfloat16"),
    "FP8": ("--quantization", "fp8_per_tensor"),
    "FP8_MM": ("--quantization", "fp8_per_tensor"),
    "FP8_KV": ("--kv-cache-dtype", "fp8"),
}
GPU_ONLY_PRECISIONS = frozenset({"FP8", "FP8_MM", "FP8_KV"})


TASK_FLAGS: dict[str, tuple[str, ...]] = {
    GENERATE: ("--structured-outputs-config", STRUCTURED_OUTPUTS),
    # Any number of dimensions is given: whether a model was trained for fewer, its files seldom say.
    EMBED: ("--runner", "pooling", "--convert", "embed", "--hf-overrides", '{"is_matryoshka": true}'),
    SCORE: ("--runner", "pooling"),
}


class UnsupportedPrecision(ValueError):
    """The engine cannot serve the model in the precision asked for."""


@dataclass(frozen=True)
class EngineSpec:
    """SPEC.json of `python -m workers.runtimes.engine`: the replica, and what the node adds."""

    replica: ReplicaSpec
    cache_dir: Path
    cpu_threads: int
    """OpenMP threads of an engine on the CPU; 0 where the replica has GPUs."""

    @property
    def on_cpu(self) -> bool:
        return self.cpu_threads > 0


ENGINE_SPEC = TypeAdapter(EngineSpec)
PHASE_FILE = "phase.txt"
"""In the replica's directory: the EnginePhase, as far as the engine's own process knows it."""


def engine_command(
    spec: EngineSpec,
    model_path: Path,
    chat_template: Path | None,
    environ: Mapping[str, str],
    draft_path: Path | None = None,
) -> tuple[list[str], dict[str, str]]:
    """The command that serves the replica, and its whole environment. `environ` is what it starts from.

    `draft_path` is where the model lies that guesses for it. Raises UnsupportedPrecision.
    """
    replica = spec.replica
    argv = [sys.executable, "-m", CPU_SERVER if spec.on_cpu else GPU_SERVER]
    argv += ["--model", str(model_path), "--served-model-name", replica.served_name]
    argv += ["--host", replica.host, "--port", str(replica.port)]
    argv += ["--disable-uvicorn-access-log", "--no-enable-log-requests", "--enable-prompt-tokens-details"]
    argv += ["--enable-per-request-metrics", "--shutdown-timeout", str(DRAIN_SECONDS)]
    argv += ["--max-num-seqs", str(REQUESTS_ON_CPU if spec.on_cpu else REQUESTS_ON_GPU)]
    argv += TASK_FLAGS[replica.task]
    if replica.task == GENERATE:
        argv += sampling_flags(replica, draft_path)
    argv += precision_flags(replica.precision, spec.on_cpu)
    if replica.max_model_len is not None:
        argv += ["--max-model-len", str(replica.max_model_len)]
    if chat_template is not None:
        argv += ["--chat-template", str(chat_template)]
    if replica.tool_parser is not None:
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", replica.tool_parser]
    if replica.enable_adapters:
        argv += lora_flags(replica)
    if spec.on_cpu:
        argv += ["--enforce-eager"]
    else:
        argv += gpu_flags(replica)
    return argv, engine_environment(spec, environ)


def precision_flags(precision: str, on_cpu: bool) -> tuple[str, ...]:
    if precision not in PRECISION_FLAGS:
        raise UnsupportedPrecision(f"the engine does not serve in precision {precision}")
    if on_cpu and precision in GPU_ONLY_PRECISIONS:
        raise UnsupportedPrecision(f"precision {precision} needs a GPU, and this node serves on the CPU")
    return PRECISION_FLAGS[precision]


def sampling_flags(replica: ReplicaSpec, draft_path: Path | None = None) -> tuple[str, ...]:
    """The engine cannot both guess ahead and sample by a plug-in; the gateway refuses what that would do."""
    if draft_path is not None:
        return draft_flags(replica, draft_path)
    if not replica.ngram_length:
        return ("--logits-processors", SAMPLING_PLUGIN)
    asked = {
        "method": "ngram",
        "num_speculative_tokens": replica.draft_tokens,
        "prompt_lookup_min": replica.ngram_length,
        "prompt_lookup_max": replica.ngram_length,
    }
    return ("--speculative-config", json.dumps(asked))


def gpu_flags(replica: ReplicaSpec) -> list[str]:
    flags = []
    if replica.accelerator_count > 1:
        flags += ["--tensor-parallel-size", str(replica.accelerator_count)]
    if replica.long_prompt:
        flags += ["--max-num-batched-tokens", str(LONG_PROMPT_STEP)]
    return flags


def draft_flags(replica: ReplicaSpec, draft_path: Path) -> tuple[str, ...]:
    asked = {
        "method": "draft_model",
        "model": str(draft_path),
        "num_speculative_tokens": replica.draft_tokens,
    }
    # Layers of several kinds of attention share one KV cache then: the engine refuses a draft model that has
    # them otherwise, and answers wrongly where the model itself has them.
    return ("--speculative-config", json.dumps(asked), "--disable-hybrid-kv-cache-manager")


def lora_flags(replica: ReplicaSpec) -> list[str]:
    rank = next((rank for rank in LORA_RANKS if rank >= replica.max_lora_rank), LORA_RANKS[-1])
    return [
        "--enable-lora",
        "--max-lora-rank",
        str(rank),
        "--max-loras",
        str(replica.max_loras),
        "--max-cpu-loras",
        str(max(replica.max_cpu_loras, replica.max_loras)),
        # An addon's chat template comes from the gateway, with each request; callers cannot send any.
        "--trust-request-chat-template",
    ]


def engine_environment(spec: EngineSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """Everything but Hearth's own settings, which hold secrets; caches stay inside the data directory."""
    env = {name: value for name, value in environ.items() if not name.startswith("HEARTH_")}
    cache = spec.cache_dir / "engine"
    env |= {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "XDG_CACHE_HOME": str(cache),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "VLLM_CONFIG_ROOT": str(cache / "vllm-config"),
        "HF_HOME": str(cache / "huggingface"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "torchinductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        # Sockets have paths of 107 characters at most: this one is relative to the engine's directory.
        "VLLM_RPC_BASE_PATH": "tmp",
    }
    if spec.replica.enable_adapters:
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if spec.on_cpu:
        env |= cpu_environment(spec)
    return env


def cpu_environment(spec: EngineSpec) -> dict[str, str]:
    """See docs/performance.md, "Engine start", for what each of these is worth."""
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(spec.replica.kv_cache_gib),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": str(spec.cpu_threads),
        # What guesses ahead sets the threads of all to its own number, which is that of the cores.
        "NUMBA_NUM_THREADS": str(spec.cpu_threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "TORCH_COMPILE_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
