"""A trainer that is stopped, killed, and finds a damaged checkpoint ends with the very same adapter."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from tests.training.trainer_process import running
from workers.training.config import JobSpec
from workers.training.errors import Interrupted
from workers.training.objectives.objective import objective_of
from workers.training.outcome.evaluate import Evaluation
from workers.training.running.checkpoints import STATE_FILE, list_checkpoints

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
    # A checkpoint after every few of 60 steps: whoever sees one comes long before the end.
    spec = make_spec(
        rows, epochs=5, batch_size=4, micro_batch_size=2, evaluation=True, checkpoint_interval_steps=4
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
    folder = f"{INTERRUPTED}checkpoints/checkpoint-{stopped_at}/"
    state = json.loads(object_store.get_bytes(folder + STATE_FILE))
    assert f"after step {stopped_at} of " in object_store.get_bytes(folder + "README.md").decode()
    assert state["way"] == {"micro_batch_size": 2, "checkpointing": False, "shards": 1}

    with running(settings, tmp_path / "second", document) as trainer:
        trainer.until(lambda: checkpoints()[0] > stopped_at)
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


def test_paused_while_it_evaluates_it_stops_early_after_the_same_step(
    jobs: Any, make_spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses are made up: the second in a row that is no better is after step 6, a better one later."""
    from workers.training import recipe

    losses = {2: 1.0, 4: 1.1, 6: 1.2, 8: 0.5}
    pauses: list[int] = []

    def evaluate(
        trainer: Any, examples: Any, rows: int, is_stopping: Callable[[], bool]
    ) -> Evaluation | None:
        step = trainer.state.global_step
        if pauses and pauses[0] == step:
            jobs.stop.requested = bool(pauses.pop())
        return None if is_stopping() else Evaluation(losses.get(step, 1.5), 1)

    monkeypatch.setattr(
        recipe, "objective_of", lambda kind: replace(objective_of(kind), evaluate=evaluate, ask=None)
    )
    talk = [{"role": "user", "content": "sky"}, {"role": "assistant", "content": "blue"}]
    spec = make_spec([{"messages": talk}] * 4, epochs=20, batch_size=4, early_stop=True)
    _, undisturbed = jobs.run(spec)
    adapter, steps = jobs.adapter("adapter_model.safetensors"), [line["step"] for line in jobs.steps()]

    for _ in range(2):  # The other time while it makes up for the evaluation that the first one cut short.
        pauses.append(6)
        with pytest.raises(Interrupted):
            jobs.run(spec)
        jobs.stop.requested = False
    _, report = jobs.run(spec)

    assert (undisturbed.steps, steps) == (20, [1, 2, 3, 4, 5, 6])
    assert [line["step"] for line in jobs.steps()] == steps
    assert (report.resumed_from_step, report.stopped_early, pauses) == (6, True, [])
    assert "the adapter of step 2 of 6 was kept" in report.warnings[-1]
    assert jobs.adapter("adapter_model.safetensors") == adapter


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
