"""Two processes that train one job: the adapter of one process, one report, and one end for both."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from tests.training.trainer_process import TrainerProcess, running
from workers.training.config import JobSpec
from workers.training.running.callbacks import REWARDS
from workers.training.running.checkpoints import list_checkpoints

pytestmark = pytest.mark.training

TOGETHER = "accounts/acme/fine-tuning-jobs/together/"
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"sky {i} " * (1 + i % 3)},
            {"role": "assistant", "content": f"c{i}"},
        ]
    }
    for i in range(21)
]


PAIRS = [
    {
        "input": row["messages"][:1],
        "preferred_output": row["messages"][1:],
        "non_preferred_output": [{"role": "assistant", "content": f"grey {i} " * (1 + i % 2)}],
    }
    for i, row in enumerate(ROWS)
]
PAIRS = [{**pair, "input": {"messages": pair["input"]}} for pair in PAIRS]
SUMMED = {"loss", "learning_rate", "grad_norm", "mean_token_accuracy", *REWARDS, "tokens_seen", "step"}
"""What all ranks come to together, the same as one process."""


@pytest.fixture
def document(make_spec: Callable[..., JobSpec]) -> Callable[..., tuple[JobSpec, dict[str, Any]]]:
    """A specification for one process, and the same job for two."""

    def make(**settings: Any) -> tuple[JobSpec, dict[str, Any]]:
        # 21 rows in batches of 4: every epoch ends with a batch of one row.
        alone = make_spec(ROWS, batch_size=4, micro_batch_size=2, checkpoint_interval_steps=5, **settings)
        return alone, {**alone.model_dump(), "processes": 2, "output_prefix": TOGETHER}

    return make


def ranks_of(trainer: TrainerProcess) -> list[int]:
    """The process ids of the trainer's children, in the order of their ranks."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environ = dict(
                pair.split("=", 1) for pair in (folder / "environ").read_text().split("\0") if "=" in pair
            )
        except OSError:
            continue
        if parent == trainer.process.pid and "RANK" in environ:
            found[int(environ["RANK"])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def test_two_processes_make_the_adapter_of_one_and_go_on_from_a_checkpoint(
    settings: Settings,
    object_store: ObjectStore,
    jobs: Any,
    document: Callable[..., tuple[JobSpec, dict[str, Any]]],
    tmp_path: Path,
) -> None:
    alone, together = document(epochs=4, evaluation=True)

    with running(settings, tmp_path / "first", together) as trainer:
        trainer.until(lambda: bool(list_checkpoints(object_store, TOGETHER)))
        trainer.process.send_signal(signal.SIGTERM)
        assert trainer.exit_status() == 143, trainer.log()
    assert object_store.head(TOGETHER + "result.json") is None
    stopped_at = list_checkpoints(object_store, TOGETHER)[0]

    with running(settings, tmp_path / "second", together) as trainer:
        assert trainer.exit_status() == 0, trainer.log()
    assert trainer.log().count(f"going on from the checkpoint of step {stopped_at}") == 1
    result = json.loads(object_store.get_bytes(TOGETHER + "result.json"))
    assert (result["outcome"], result["report"]["resumed_from_step"]) == ("succeeded", stopped_at)
    progress = json.loads(object_store.get_bytes(TOGETHER + "progress.json"))
    assert progress["settings"]["processes"] == 2
    assert progress["settings"]["gradient_accumulation_steps"] == 1

    expected, _ = jobs.run(alone)
    ours, theirs = losses(object_store, alone.output_prefix), losses(object_store, TOGETHER)
    assert theirs == pytest.approx(ours, rel=1e-3)
    assert result["metrics"]["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-3)
    adapters = [adapter(object_store, prefix) for prefix in (alone.output_prefix, TOGETHER)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, weights in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], weights, rtol=1e-3, atol=1e-4)


def test_packs_are_shared_as_rows_are(
    settings: Settings,
    object_store: ObjectStore,
    jobs: Any,
    make_spec: Callable[..., JobSpec],
    tmp_path: Path,
) -> None:
    alone = make_spec(
        ROWS, epochs=2, batch_size=2, micro_batch_size=1, batch_tokens=96, cutoff_length=96, evaluation=True
    )
    together = {**alone.model_dump(), "processes": 2, "output_prefix": TOGETHER}
    with running(settings, tmp_path / "run", together) as trainer:
        assert trainer.exit_status() == 0, trainer.log()
    expected, report = jobs.run(alone)

    result = json.loads(object_store.get_bytes(TOGETHER + "result.json"))
    assert result["report"]["steps"] == report.steps > 2
    ours, theirs = losses(object_store, alone.output_prefix), losses(object_store, TOGETHER)
    assert theirs == pytest.approx(ours, rel=1e-3)
    assert result["metrics"]["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("method", "batches"),
    [
        ("dpo", {"batch_size": 2, "micro_batch_size": 1, "batch_tokens": 96, "cutoff_length": 48}),
        ("orpo", {"batch_size": 4, "micro_batch_size": 2}),
    ],
    ids=["dpo in packs", "orpo in rows"],
)
def test_pairs_are_shared_as_rows_are(
    settings: Settings,
    object_store: ObjectStore,
    jobs: Any,
    make_spec: Callable[..., JobSpec],
    tmp_path: Path,
    method: str,
    batches: dict[str, int],
) -> None:
    """What the two have in a step is not of one size, and one of them has nothing at the end of an epoch."""
    alone = make_spec(
        PAIRS[:20], kind="preference", preference={"method": method}, epochs=2, evaluation=True, **batches
    )
    together = {**alone.model_dump(), "processes": 2, "output_prefix": TOGETHER}
    with running(settings, tmp_path / "run", together) as trainer:
        assert trainer.exit_status() == 0, trainer.log()
    expected, report = jobs.run(alone)

    result = json.loads(object_store.get_bytes(TOGETHER + "result.json"))
    assert result["report"]["steps"] == report.steps > 4
    ours, theirs = (metrics(object_store, prefix) for prefix in (alone.output_prefix, TOGETHER))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert {name: other[name] for name in one if name in SUMMED} == pytest.approx(
            {name: one[name] for name in one if name in SUMMED}, rel=1e-3, abs=1e-5
        )
    assert result["metrics"]["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-3)


def metrics(store: ObjectStore, prefix: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in store.get_bytes(prefix + "metrics.jsonl").splitlines()]


def losses(store: ObjectStore, prefix: str) -> list[float]:
    lines = [json.loads(line) for line in store.get_bytes(prefix + "metrics.jsonl").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def adapter(store: ObjectStore, prefix: str) -> dict[str, torch.Tensor]:
    return load(store.get_bytes(prefix + "adapter/adapter_model.safetensors"))


def test_the_death_of_one_process_ends_the_attempt_as_it_ended(
    settings: Settings,
    object_store: ObjectStore,
    document: Callable[..., tuple[JobSpec, dict[str, Any]]],
    tmp_path: Path,
) -> None:
    _, together = document(epochs=100)
    with running(settings, tmp_path / "run", together) as trainer:
        trainer.until(lambda: bool(list_checkpoints(object_store, TOGETHER)))
        first, second = ranks_of(trainer)
        os.kill(second, signal.SIGKILL)
        assert trainer.exit_status() == -signal.SIGKILL, trainer.log()
        assert not Path(f"/proc/{first}").exists()
    assert "process 2 of 2 was killed by SIGKILL" in trainer.log()
    assert object_store.head(TOGETHER + "result.json") is None


def test_what_one_process_finds_wrong_is_the_result_of_the_job(
    settings: Settings,
    object_store: ObjectStore,
    document: Callable[..., tuple[JobSpec, dict[str, Any]]],
    tmp_path: Path,
) -> None:
    _, together = document(epochs=1, cutoff_length=3)
    with running(settings, tmp_path / "run", together) as trainer:
        assert trainer.exit_status() == 1, trainer.log()
    result = json.loads(object_store.get_bytes(TOGETHER + "result.json"))
    assert (result["outcome"], result["reason"]) == ("failed", "ALL_ROWS_TRUNCATED")
    assert result["report"]["rows_in"] == len(ROWS)
