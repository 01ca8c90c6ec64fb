"""The engine's command line, and what its last words mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.checks.architectures import EMBED, SCORE, architectures, embedding_architectures
from controlplane.resources.deployments.engine import SERVED_ON_GPUS, SERVED_PRECISIONS
from workers.runtimes.base import ModelFile, ModelSource, ReplicaSpec
from workers.runtimes.engine import staged_path
from workers.runtimes.engine_failure import ERROR_MARK, ended_by_signal, failure_reason
from workers.runtimes.vllm import (
    ENGINE_SPEC,
    GPU_ONLY_PRECISIONS,
    PRECISION_FLAGS,
    EngineSpec,
    UnsupportedPrecision,
    engine_command,
)

REPLICA = ReplicaSpec(
    replica_uid="aa",
    served_name="base",
    model=ModelSource("bb", "accounts/a/models/bb/", (ModelFile("config.json", 2, ""),)),
    host="127.0.0.1",
    port=20001,
)
ON_CPU = EngineSpec(REPLICA, Path("/data/cache"), cpu_threads=3)
ON_GPU = EngineSpec(REPLICA, Path("/data/cache"), cpu_threads=0)
MODEL = Path("/data/cache/models/bb")


def command(spec: EngineSpec, template: Path | None = None) -> tuple[list[str], dict[str, str]]:
    environ = {"PATH": "/bin", "HEARTH_S3_SECRET_KEY": "secret", "CUDA_VISIBLE_DEVICES": "1"}
    return engine_command(spec, MODEL, template, environ)


def value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_the_engine_serves_the_staged_model_under_its_name_where_it_was_told() -> None:
    argv, _ = command(ON_CPU)
    assert value(argv, "--model") == str(MODEL)
    assert value(argv, "--served-model-name") == "base"
    assert (value(argv, "--host"), value(argv, "--port")) == ("127.0.0.1", "20001")
    assert "--trust-remote-code" not in argv
    assert not {"--enable-lora", "--max-model-len", "--chat-template"} & set(argv)


def test_the_engine_gets_none_of_our_secrets_and_asks_nobody_outside() -> None:
    _, env = command(ON_CPU)
    assert not [name for name in env if name.startswith("HEARTH_")]
    assert (env["HF_HUB_OFFLINE"], env["VLLM_NO_USAGE_STATS"], env["PATH"]) == ("1", "1", "/bin")


def test_its_caches_stay_in_the_data_directory() -> None:
    _, env = command(ON_CPU)
    for name in ("XDG_CACHE_HOME", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "HF_HOME"):
        assert env[name].startswith("/data/cache/engine")


def test_on_the_cpu_it_is_eager_small_and_hidden_from_gpus() -> None:
    argv, env = command(ON_CPU)
    assert "--enforce-eager" in argv
    assert env["TORCH_COMPILE_DISABLE"] == "1"
    assert (env["VLLM_CPU_KVCACHE_SPACE"], env["CUDA_VISIBLE_DEVICES"]) == ("1", "")
    assert env["OMP_NUM_THREADS"] == env["NUMBA_NUM_THREADS"] == "3"


def test_on_gpus_it_keeps_those_it_was_given() -> None:
    argv, env = command(replace(ON_GPU, replica=replace(REPLICA, accelerator_count=2)))
    assert value(argv, "--tensor-parallel-size") == "2"
    assert env["CUDA_VISIBLE_DEVICES"] == "1"
    assert "--enforce-eager" not in argv
    assert "VLLM_CPU_KVCACHE_SPACE" not in env


def test_long_prompts_are_read_in_larger_steps_on_gpus() -> None:
    replica = replace(REPLICA, accelerator_count=2, long_prompt=True)
    argv, _ = command(replace(ON_GPU, replica=replica))
    assert value(argv, "--tensor-parallel-size") == "2"
    assert int(value(argv, "--max-num-batched-tokens")) == 16384 > int(value(argv, "--max-num-seqs"))
    for other in (replace(ON_CPU, replica=replica), ON_GPU):
        assert "--max-num-batched-tokens" not in command(other)[0]


def test_a_context_length_and_a_template_are_passed_on() -> None:
    spec = replace(ON_CPU, replica=replace(REPLICA, max_model_len=512))
    argv, _ = command(spec, Path("/run/aa/chat_template.jinja"))
    assert value(argv, "--max-model-len") == "512"
    assert value(argv, "--chat-template") == "/run/aa/chat_template.jinja"


def test_a_tool_parser_is_passed_on_with_what_it_needs() -> None:
    argv, _ = command(replace(ON_CPU, replica=replace(REPLICA, tool_parser="hermes")))
    assert value(argv, "--tool-call-parser") == "hermes"
    assert "--enable-auto-tool-choice" in argv
    assert not {"--enable-auto-tool-choice", "--tool-call-parser"} & set(command(ON_CPU)[0])


def test_grammars_are_followed_by_the_backend_that_the_gateway_writes_them_for() -> None:
    assert json.loads(value(command(ON_CPU)[0], "--structured-outputs-config")) == {"backend": "xgrammar"}


@pytest.mark.parametrize(("asked", "built"), [(1, "8"), (8, "8"), (9, "16"), (64, "64")])
def test_with_addons_it_is_built_for_the_next_rank_that_it_knows(asked: int, built: str) -> None:
    replica = replace(REPLICA, enable_adapters=True, max_lora_rank=asked, max_loras=40, max_cpu_loras=2)
    argv, env = command(replace(ON_CPU, replica=replica))
    assert value(argv, "--max-lora-rank") == built
    assert value(argv, "--max-cpu-loras") == value(argv, "--max-loras") == "40"
    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"


def test_only_with_addons_may_a_request_bring_a_chat_template() -> None:
    with_addons = replace(ON_CPU, replica=replace(REPLICA, enable_adapters=True))
    assert "--trust-request-chat-template" in command(with_addons)[0]
    assert "--trust-request-chat-template" not in command(ON_CPU)[0]


@pytest.mark.parametrize("spec", [ON_CPU, ON_GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize(("length", "count"), [(1, 4), (3, 1), (100, 8)])
def test_tokens_are_guessed_ahead_as_the_deployment_says(spec: EngineSpec, length: int, count: int) -> None:
    replica = replace(REPLICA, ngram_length=length, draft_tokens=count)
    argv, _ = command(replace(spec, replica=replica))
    assert json.loads(value(argv, "--speculative-config")) == {
        "method": "ngram",
        "num_speculative_tokens": count,
        "prompt_lookup_min": length,
        "prompt_lookup_max": length,
    }
    assert "--logits-processors" not in argv, "the engine refuses to start with both"


@pytest.mark.parametrize("spec", [ON_CPU, ON_GPU], ids=["cpu", "gpu"])
def test_a_draft_model_guesses_from_where_it_is_staged(spec: EngineSpec) -> None:
    draft = ModelSource("dd", "accounts/a/models/dd/", (ModelFile("config.json", 2, ""),))
    replica = replace(REPLICA, draft=draft, draft_tokens=3, accelerator_count=2)
    read = ENGINE_SPEC.validate_json(ENGINE_SPEC.dump_json(replace(spec, replica=replica)))
    assert [source.uid for source in read.replica.sources] == ["bb", "dd"]
    argv, _ = engine_command(read, MODEL, None, {}, staged_path(read, draft))
    assert json.loads(value(argv, "--speculative-config")) == {
        "method": "draft_model",
        "model": "/data/cache/models/dd",
        "num_speculative_tokens": 3,
    }
    assert "--disable-hybrid-kv-cache-manager" in argv
    assert "--logits-processors" not in argv, "the engine refuses to start with both"


@pytest.mark.parametrize(("task", "ours"), [("generate", ["--logits-processors"]), (EMBED, []), (SCORE, [])])
def test_what_guesses_nothing_samples_by_our_plug_in_where_it_writes(task: str, ours: list[str]) -> None:
    argv, _ = command(replace(ON_CPU, replica=replace(REPLICA, task=task)))
    assert [flag for flag in ("--speculative-config", "--logits-processors") if flag in argv] == ours


def test_precisions_become_flags_or_a_refusal() -> None:
    def at(precision: str, spec: EngineSpec) -> list[str]:
        return command(replace(spec, replica=replace(REPLICA, precision=precision)))[0]

    assert at("FP16", ON_CPU) == at("PRECISION_UNSPECIFIED", ON_CPU)
    assert value(at("BF16", ON_CPU), "--dtype") == "bfloat16"
    assert value(at("FP8", ON_GPU), "--quantization") == "fp8_per_tensor"
    assert value(at("FP8_KV", ON_GPU), "--kv-cache-dtype") == "fp8"
    with pytest.raises(UnsupportedPrecision, match="FP8 needs a GPU"):
        at("FP8", ON_CPU)
    with pytest.raises(UnsupportedPrecision, match="FP4_MX_MOE"):
        at("FP4_MX_MOE", ON_GPU)


def test_a_spec_survives_its_file() -> None:
    text = json.dumps(ENGINE_SPEC.dump_python(ON_CPU, mode="json"))
    assert ENGINE_SPEC.validate_json(text) == ON_CPU


# The engine's output, shortened; then reason, whether to try again, and what the message must name.
FAILURES = [
    (
        "Failed to import from vllm._C: ImportError('libnuma.so.1: cannot open shared object file: No')\n"
        "AttributeError: '_OpNamespace' '_C' object has no attribute 'init_cpu_memory_env'",
        "LIBRARY_MISSING",
        False,
        "the engine needs libnuma.so.1, which is not installed on the node",
    ),
    (
        "OSError: [Errno 98] error while attempting to bind on ('127.0.0.1', 20001): address already in use",
        "PORT_IN_USE",
        True,
        "port",
    ),
    (
        "(Worker pid=9) ERROR torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "GPU_OUT_OF_MEMORY",
        False,
        "memory of the GPU",
    ),
    (
        "ValueError: Free memory on device cuda:0 (1.5/79.1 GiB) on startup is less than desired GPU memory",
        "GPU_OUT_OF_MEMORY",
        True,
        "1.5 of 79.1 GiB",
    ),
    (
        "RuntimeError: [enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory",
        "OUT_OF_MEMORY",
        False,
        "memory of the node",
    ),
    (
        "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV "
        "cache is needed, which is larger than the available KV cache memory (1.0 GiB). Try increasing",
        "KV_CACHE_TOO_SMALL",
        False,
        "131072 tokens needs 16.0 GiB",
    ),
    (
        "  Value error, User-specified max_model_len (9999) is greater than the derived max_model_len "
        "(max_position_embeddings=2048.0 or model_max_length=None in model's config.json).",
        "CONTEXT_TOO_LONG",
        False,
        "9999",
    ),
    (
        "ValueError: Model architectures ['OddForCausalLM'] are not supported for now.",
        "UNSUPPORTED_ARCHITECTURE",
        False,
        "OddForCausalLM",
    ),
    (
        "ValueError: The checkpoint you are trying to load has model type `odd` but Transformers does not "
        "recognize this architecture.",
        "UNSUPPORTED_ARCHITECTURE",
        False,
        "odd",
    ),
    (
        "RuntimeError: Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0\n"
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.",
        "UNSUPPORTED_HEAD_SIZE",
        False,
        "size 16",
    ),
    ("ValueError: GPT2LMHeadModel does not support LoRA yet.", "ADAPTERS_UNSUPPORTED", False, "addons"),
    (
        "ValueError: Available memory on node 0 (0.4/9.3 GiB) on kv cache allocation is less than requested",
        "OUT_OF_MEMORY",
        True,
        "0.4 of 9.3 GiB",
    ),
    (
        "ValueError: Model architecture OldForCausalLM was supported in vLLM until v0.9, and is not",
        "UNSUPPORTED_ARCHITECTURE",
        False,
        "OldForCausalLM",
    ),
    ("safetensors_rust.SafetensorError: Error while deserializing header", "BAD_WEIGHTS", False, "weights"),
    ("OSError: [Errno 28] No space left on device", "DISK_FULL", True, "disk"),
    ("RuntimeError: CUDA error: device-side assert triggered", "GPU_ERROR", True, "device-side assert"),
    (
        "(EngineCore pid=12) ERROR 11-21 13:10:36 [core.py:133] KeyError: 'lm_head'\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
        "nanobind: leaked 4 instances!",
        "ENGINE_ERROR",
        False,
        "KeyError: 'lm_head'",
    ),
    ("something odd\n", "ENGINE_ENDED", True, "something odd"),
    ("", "ENGINE_ENDED", True, "without a word"),
]


@pytest.mark.parametrize(("output", "reason", "retryable", "named"), FAILURES)
def test_the_root_cause_is_found_in_the_output(output: str, reason: str, retryable: bool, named: str) -> None:
    failure = failure_reason(output)
    assert (failure.reason, failure.retryable) == (reason, retryable)
    assert named in failure.message
    assert "\n" not in failure.message


def test_what_our_own_part_reported_comes_first() -> None:
    said = {"code": "DATA_LOSS", "reason": "SIZE_MISMATCH", "message": "too short", "retryable": False}
    failure = failure_reason(f"CUDA error: x\n{ERROR_MARK}{json.dumps(said)}\n{ERROR_MARK}broken")
    assert (failure.code, failure.reason, failure.message) == ("DATA_LOSS", "SIZE_MISMATCH", "too short")


def test_a_kill_by_the_system_speaks_of_memory_and_a_crash_of_its_signal() -> None:
    assert "memory ran out" in ended_by_signal(9, "").message
    assert "signal 11" in ended_by_signal(11, "").message


def test_validation_knows_what_the_engine_serves() -> None:
    known = architectures()
    assert known["LlamaForCausalLM"].supports_lora
    assert known["Qwen2ForCausalLM"].supports_lora
    assert not known["GPT2LMHeadModel"].supports_lora
    assert "BertModel" not in known
    assert known["LlavaForConditionalGeneration"].reads_images
    assert not known["LlavaForConditionalGeneration"].reads_audio
    assert not known["LlavaForConditionalGeneration"].supports_lora
    assert "WhisperForConditionalGeneration" not in known
    assert not known["LlamaForCausalLM"].reads_images
    pooling = embedding_architectures()
    assert {pooling[name].task for name in ("BertModel", "LlamaForCausalLM", "Qwen3ForCausalLM")} == {EMBED}
    assert pooling["BertForSequenceClassification"].task == SCORE


def test_what_may_be_asked_for_is_what_the_engine_has_flags_for() -> None:
    assert {*SERVED_PRECISIONS, *SERVED_ON_GPUS} == PRECISION_FLAGS.keys() - {""}
    assert set(SERVED_ON_GPUS) == GPU_ONLY_PRECISIONS


@pytest.mark.parametrize("task", [EMBED, SCORE])
def test_an_engine_that_writes_no_text_is_started_for_its_task(task: str) -> None:
    argv, _ = command(replace(ON_CPU, replica=replace(REPLICA, task=task)))
    assert value(argv, "--runner") == "pooling"
    assert "--structured-outputs-config" not in argv
    assert ("--convert" in argv) == (task == EMBED)
