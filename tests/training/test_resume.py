"""A trainer that is stopped, killed, and finds a damaged checkpoint ends with the very same adapter."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from tests.training.trainer_process import running
from workers.training.config import JobSpec
from workers.training.running.checkpoints import list_checkpoints

pytestmark = pytest.mark.training

INTERRUPTED = "accounts/acme/fine-tuning-jobs/interrupted/"
OF_THE_MACHINE = ("tokens_per_second", "peak_memory_bytes", "gpu_memory_bytes")


def test_stopped_killed_and_damaged_it_ends_the_same(
    settings: Settings,
    object_store: ObjectStore,
    jobs: Any,
    make_spec: Callable[..., JobSpec],
    tmp_path: Path,
) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"sky {i}"}, {"role": "assistant", "content": f"c{i}"}]}
        for i in range(48)
    ]
    spec = make_spec(
        rows, epochs=5, batch_size=4, micro_batch_size=2, evaluation=True, checkpoint_interval_steps=6
    )
    document = {**spec.model_dump(), "output_prefix": INTERRUPTED}

    def checkpoints() -> list[int]:
        return list_checkpoints(object_store, INTERRUPTED)

    with running(settings, tmp_path / "first", document) as trainer:
        trainer.until(lambda: bool(checkpoints()))
        trainer.process.send_signal(signal.SIGTERM)
        assert trainer.exit_status() == 143, trainer.log()
    stopped_at = checkpoints()[0]
    assert object_store.head(INTERRUPTED + "result.json") is None

    with running(settings, tmp_path / "second", document) as trainer:
        trainer.until(lambda: len([step for step in checkpoints() if step > stopped_at]) == 2)
        trainer.process.kill()
        trainer.exit_status()
    damaged, good, *_ = checkpoints()  # A third where it died before it deleted the oldest.
    object_store.put_bytes(f"{INTERRUPTED}checkpoints/checkpoint-{damaged}/optimizer.pt", b"damaged")

    with running(settings, tmp_path / "third", document) as trainer:
        assert trainer.exit_status() == 0, trainer.log()
        assert "leaked" not in trainer.log()  # As some libraries say when the process ends.
    assert f"going on from the checkpoint of step {good}" in trainer.log()
    result = json.loads(object_store.get_bytes(INTERRUPTED + "result.json"))
    assert (result["outcome"], result["report"]["resumed_from_step"]) == ("succeeded", good)

    expected, _ = jobs.run(spec)
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert object_store.get_bytes(INTERRUPTED + name) == object_store.get_bytes(spec.output_prefix + name)
    undisturbed = learned(object_store.get_bytes(spec.output_prefix + "metrics.jsonl"))
    assert learned(object_store.get_bytes(INTERRUPTED + "metrics.jsonl")) == undisturbed
    for name in ("train_loss", "eval_loss", "tokens_seen", "epoch"):
        assert result["metrics"][name] == expected[name]


def learned(metrics: bytes) -> list[dict[str, Any]]:
    """The lines of metrics without what the machine had to do with it."""
    lines = [json.loads(line) for line in metrics.splitlines()]
    return [{name: value for name, value in line.items() if name not in OF_THE_MACHINE} for line in lines]


def test_a_failure_is_written_where_it_is_looked_for(
    settings: Settings, object_store: ObjectStore, make_spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    rows = [{"messages": [{"role": "user", "content": "x " * 200}, {"role": "assistant", "content": "y"}]}]
    document = make_spec(rows, cutoff_length=16).model_dump()

    with running(settings, tmp_path / "run", document) as trainer:
        assert trainer.exit_status() == 1

    result = json.loads(object_store.get_bytes(document["output_prefix"] + "result.json"))
    assert (result["outcome"], result["code"], result["reason"]) == (
        "failed",
        "INVALID_ARGUMENT",
        "ALL_ROWS_TRUNCATED",
    )
    assert "16 tokens" in result["message"]


def test_a_specification_that_cannot_be_read_is_a_result_too(
    settings: Settings, object_store: ObjectStore, make_spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    document = make_spec([{"messages": []}]).model_dump() | {"epochs": -1}

    with running(settings, tmp_path / "run", document) as trainer:
        assert trainer.exit_status() == 1

    result = json.loads(object_store.get_bytes(document["output_prefix"] + "result.json"))
    assert (result["outcome"], result["reason"]) == ("failed", "BAD_SPECIFICATION")
    assert "epochs" in result["message"]
