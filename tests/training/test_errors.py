"""Exceptions become a code, a reason and one sentence."""

from __future__ import annotations

import errno

import pytest

from controlplane.storage import ObjectNotFound
from workers.runtimes.node_cache import StagingError
from workers.training.errors import RowFailure, describe_failure


@pytest.mark.parametrize(
    ("error", "code", "reason", "part"),
    [
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
            "RESOURCE_EXHAUSTED",
            "OUT_OF_MEMORY",
            "microBatchSize needs less: CUDA out of memory. Tried to allocate 2 GiB.",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory"),
            "RESOURCE_EXHAUSTED",
            "OUT_OF_MEMORY",
            "not enough memory",
        ),
        (MemoryError(), "RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", "ran out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "RESOURCE_EXHAUSTED", "DISK_FULL", "disk"),
        (
            RuntimeError("PytorchStreamWriter failed: No space left on device"),
            "RESOURCE_EXHAUSTED",
            "DISK_FULL",
            "disk",
        ),
        (ObjectNotFound("a/b"), "FAILED_PRECONDITION", "FILE_MISSING", "a/b is missing"),
        (
            StagingError("DATA_LOSS", "CHECKSUM_MISMATCH", "f is damaged"),
            "DATA_LOSS",
            "CHECKSUM_MISMATCH",
            "f is damaged",
        ),
        (
            RowFailure("train.jsonl line 7", "TEMPLATE_ERROR", "roles must alternate"),
            "INVALID_ARGUMENT",
            "TEMPLATE_ERROR",
            "train.jsonl line 7: roles must alternate",
        ),
        (
            ValueError("Target modules {'w9'} not found in the base model. Please check."),
            "INVALID_ARGUMENT",
            "LORA_TARGET_MODULES",
            "w9",
        ),
        (KeyError("what"), "INTERNAL", "TRAINER_ERROR", "KeyError: 'what'"),
    ],
)
def test_a_failure_names_its_root_cause(error: Exception, code: str, reason: str, part: str) -> None:
    failure = describe_failure(error)

    assert (failure.code, failure.reason) == (code, reason)
    assert part in failure.message
    assert "\n" not in failure.message


def test_a_long_complaint_is_cut() -> None:
    assert len(describe_failure(ValueError("x" * 10_000)).message) < 600
