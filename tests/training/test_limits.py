"""A node that is full, of files or of memory: the job fails with the reason and a hint, in real trainers."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from tests.training.trainer_process import ROOT, running
from workers.training.config import JobSpec

pytestmark = pytest.mark.training

KIB = 1024
ROWS = [
    {"messages": [{"role": "user", "content": f"sky {i}"}, {"role": "assistant", "content": f"c{i}"}]}
    for i in range(24)
]


@pytest.fixture
def outcome(
    settings: Settings, object_store: ObjectStore, make_spec: Callable[..., JobSpec], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """The result of a trainer that has so much of something and no more."""

    def run(limit: int, value: int) -> dict[str, Any]:
        spec = make_spec(ROWS, batch_size=4, lora_rank=64, checkpoint_interval_steps=2)
        document = spec.model_dump()
        with running(settings, tmp_path / "run", document, {limit: value}) as trainer:
            assert trainer.exit_status() == 1, trainer.log()
        found: dict[str, Any] = json.loads(object_store.get_bytes(document["output_prefix"] + "result.json"))
        return found

    return run


@pytest.mark.parametrize(
    ("most", "when"), [(64 * KIB, "the weights are staged"), (400 * KIB, "a checkpoint is written")]
)
def test_a_full_disk_is_named(outcome: Callable[..., dict[str, Any]], most: int, when: str) -> None:
    result = outcome(resource.RLIMIT_FSIZE, most)
    assert (result["code"], result["reason"]) == ("RESOURCE_EXHAUSTED", "DISK_FULL"), (when, result)
    assert "disk" in result["message"]


OUT_OF_MEMORY = """
import resource, torch
from workers.training.errors import describe_failure
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for allocate in (lambda: torch.empty(1 << 30), lambda: bytearray(1 << 30)):
    try:
        allocate()
    except Exception as error:
        wrapped = RuntimeError("a library failed")
        wrapped.__cause__ = error
        for failure in map(describe_failure, (error, wrapped)):
            print(failure.code, failure.reason, "microBatchSize needs less" in failure.message)
"""


def test_memory_that_ran_out_is_named_with_what_needs_less() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["RESOURCE_EXHAUSTED OUT_OF_MEMORY True"] * 4
