"""From an engine's last output to the root cause of its end."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from workers.runtimes.base import EngineFailure

ERROR_MARK = "HEARTH-ENGINE-ERROR "
MESSAGE_LIMIT = 400


class Symptom(NamedTuple):
    pattern: re.Pattern[str]
    code: str
    reason: str
    message: str
    """May name groups of the pattern."""
    retryable: bool = False


def _symptom(pattern: str, code: str, reason: str, message: str, retryable: bool = False) -> Symptom:
    return Symptom(re.compile(pattern, re.IGNORECASE), code, reason, message, retryable)


# The first that matches anywhere in the tail wins, so root causes stand before what they bring about.
SYMPTOMS = (
    _symptom(
        r"Failed to import from vllm\.\w+: ImportError\([\"'](?P<name>lib[\w.+-]+): cannot open shared",
        "FAILED_PRECONDITION",
        "LIBRARY_MISSING",
        "the engine needs {name}, which is not installed on the node",
    ),
    _symptom(
        r"address already in use",
        "UNAVAILABLE",
        "PORT_IN_USE",
        "the port chosen for the engine was taken by another program",
        retryable=True,
    ),
    _symptom(
        r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|CUDA error: out of memory",
        "RESOURCE_EXHAUSTED",
        "GPU_OUT_OF_MEMORY",
        "out of memory: the model does not fit into the memory of the GPU",
    ),
    _symptom(
        r"Free memory on device .{0,20}\((?P<free>[\d.]+)/(?P<all>[\d.]+) GiB\) on startup is less than",
        "RESOURCE_EXHAUSTED",
        "GPU_OUT_OF_MEMORY",
        "out of memory: only {free} of {all} GiB of the GPU are free",
        retryable=True,
    ),
    _symptom(
        r"Available memory on node \S+ \((?P<free>[\d.]+)/(?P<all>[\d.]+) GiB\) on kv cache",
        "RESOURCE_EXHAUSTED",
        "OUT_OF_MEMORY",
        "out of memory: only {free} of {all} GiB of the node are free for the KV cache",
        retryable=True,
    ),
    _symptom(
        r"DefaultCPUAllocator: (?:can't|not enough memory)|\bMemoryError\b|Cannot allocate memory",
        "RESOURCE_EXHAUSTED",
        "OUT_OF_MEMORY",
        "out of memory: the model and its KV cache do not fit into the memory of the node",
    ),
    _symptom(
        r"To serve at least one request with the model\S* max seq len \((?P<length>\d+)\), "
        r"\(?(?P<needed>[\d.]+) GiB KV cache is needed.{0,80}?available KV cache memory "
        r"\((?P<free>[\d.]+) GiB\)",
        "RESOURCE_EXHAUSTED",
        "KV_CACHE_TOO_SMALL",
        "a context of {length} tokens needs {needed} GiB of KV cache and {free} GiB are available: "
        "lower maxContextLength",
    ),
    _symptom(
        r"No available memory for the cache blocks",
        "RESOURCE_EXHAUSTED",
        "KV_CACHE_TOO_SMALL",
        "the weights leave no memory for the KV cache",
    ),
    _symptom(
        r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len"
        r"[^\n]*?=(?P<most>[\d.]+)",
        "INVALID_ARGUMENT",
        "CONTEXT_TOO_LONG",
        "maxContextLength {asked} is longer than the model's {most} tokens",
    ),
    _symptom(
        r"Model architectures? \[?(?P<names>[^\] ]*)\]? (?:are not supported|failed to be inspected|"
        r"was supported in vLLM until|is not supported in-tree)",
        "FAILED_PRECONDITION",
        "UNSUPPORTED_ARCHITECTURE",
        "the engine does not support the architecture {names}",
    ),
    _symptom(
        r"model type [`'\"](?P<kind>[\w.-]+)[`'\"] but Transformers does not recognize",
        "FAILED_PRECONDITION",
        "UNSUPPORTED_ARCHITECTURE",
        "the engine does not know the model type {kind}",
    ),
    _symptom(
        r"Unsupported CPU attention configuration: head_dim=(?P<size>\d+)",
        "FAILED_PRECONDITION",
        "UNSUPPORTED_HEAD_SIZE",
        "the engine cannot serve attention heads of size {size} on the CPU",
    ),
    _symptom(
        r"does not support LoRA|LoRA is not supported",
        "FAILED_PRECONDITION",
        "ADAPTERS_UNSUPPORTED",
        "the engine cannot serve addons on this architecture",
    ),
    _symptom(
        r"(?:Unknown|unsupported) quantization method:? (?P<method>\S+)|"
        r"quantization method (?P<other>\S+) is not supported",
        "FAILED_PRECONDITION",
        "UNSUPPORTED_QUANTIZATION",
        "the engine does not support the quantization of the weights",
    ),
    _symptom(
        r"(?:SafetensorError|safetensors_rust\.\w+): ?(?P<what>[^\n]*)|UnpicklingError",
        "FAILED_PRECONDITION",
        "BAD_WEIGHTS",
        "the weights cannot be read",
    ),
    _symptom(
        r"size of tensor a \(\d+\) must match|Attempted to load weight \([^)]*\) into parameter|"
        r"weights were not initialized from checkpoint|shape mismatch|no module or parameter named",
        "FAILED_PRECONDITION",
        "BAD_WEIGHTS",
        "the weights do not fit the model's config.json",
    ),
    _symptom(
        r"Can't load tokenizer|Couldn't instantiate the backend tokenizer",
        "FAILED_PRECONDITION",
        "BAD_TOKENIZER",
        "the tokenizer files cannot be read",
    ),
    _symptom(
        r"jinja2\.exceptions\.(?P<what>\w+): (?P<detail>[^\n]*)|supplied chat template[^\n]*",
        "INVALID_ARGUMENT",
        "BAD_CHAT_TEMPLATE",
        "the chat template is not valid",
    ),
    _symptom(
        r"No space left on device",
        "RESOURCE_EXHAUSTED",
        "DISK_FULL",
        "the disk of the node is full",
        retryable=True,
    ),
    _symptom(
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old",
        "FAILED_PRECONDITION",
        "GPU_DRIVER_TOO_OLD",
        "the GPU driver of the node is too old for the engine",
    ),
    _symptom(
        r"(?:CUDA error: |CUDA-capable device|cudaError|NCCL error)(?P<what>[^\n]*)",
        "UNAVAILABLE",
        "GPU_ERROR",
        "the GPU failed: {what}",
        retryable=True,
    ),
    _symptom(
        r"unrecognized arguments: (?P<what>[^\n]*)",
        "INTERNAL",
        "BAD_ENGINE_FLAGS",
        "the engine does not know the flags {what}",
    ),
)

# What vLLM puts before a line: the process, then the level, the time and the place.
LINE_PREFIX = re.compile(r"^(?:\([\w-]+ pid=\d+\) )?(?:[A-Z]+ [\d-]+ [\d:]+ \[[\w./-]+:\d+\] ?)?")
EXCEPTION_LINE = re.compile(
    r"^(?:[\w]+\.)*(?P<kind>[A-Z]\w*(?:Error|Exception|Exit|Interrupt)): (?P<text>.+)"
)
# What only says that something else went wrong.
SECOND_HAND = re.compile(
    r"Engine core initialization failed|EngineDeadError|EngineCore encountered|See (?:root|stack)"
)
NOISE = re.compile(r"nanobind|leaked|resource_tracker|warnings\.warn|^\s*$")


def failure_reason(log_tail: str) -> EngineFailure:
    """The root cause in an engine's last output; failing all else, its last line that says anything."""
    return _own_error(log_tail) or _known_symptom(log_tail) or _last_words(log_tail)


def ended_by_signal(number: int, log_tail: str) -> EngineFailure:
    """The cause of an end by a signal that nobody of ours sent."""
    if number == 9:
        return EngineFailure(
            "RESOURCE_EXHAUSTED",
            "KILLED",
            "the engine was killed by the operating system (SIGKILL), most likely because memory ran out",
            retryable=True,
        )
    known = _known_symptom(log_tail)
    return known or EngineFailure(
        "INTERNAL", "CRASHED", f"the engine crashed with signal {number}", retryable=True
    )


def _own_error(log_tail: str) -> EngineFailure | None:
    """What `engine` itself reported before vLLM ran."""
    for line in reversed(log_tail.splitlines()):
        if line.startswith(ERROR_MARK):
            try:
                said = json.loads(line.removeprefix(ERROR_MARK))
                return EngineFailure(said["code"], said["reason"], said["message"], bool(said["retryable"]))
            except (ValueError, KeyError, TypeError):
                continue
    return None


def _known_symptom(log_tail: str) -> EngineFailure | None:
    for symptom in SYMPTOMS:
        if found := symptom.pattern.search(log_tail):
            groups = {name: _shorten(value or "") for name, value in found.groupdict().items()}
            message = symptom.message.format(**groups)
            return EngineFailure(symptom.code, symptom.reason, message, symptom.retryable)
    return None


def _last_words(log_tail: str) -> EngineFailure:
    lines = [LINE_PREFIX.sub("", line).strip() for line in log_tail.splitlines()]
    spoken = [line for line in lines if line and not NOISE.search(line)]
    errors = [line for line in spoken if EXCEPTION_LINE.match(line) and not SECOND_HAND.search(line)]
    if errors:
        return EngineFailure("INTERNAL", "ENGINE_ERROR", f"the engine failed: {_shorten(errors[-1])}")
    if spoken:
        said = _shorten(spoken[-1])
        return EngineFailure("INTERNAL", "ENGINE_ENDED", f"the engine ended; its last words: {said}", True)
    return EngineFailure("INTERNAL", "ENGINE_ENDED", "the engine ended without a word", retryable=True)


def _shorten(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"
