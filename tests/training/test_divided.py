"""A base model divided between two processes: half of the weights each, and the adapter of one process."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from tests.training.conftest import JOB_PREFIX
from tests.training.test_ranks import PAIRS, ROWS, TOGETHER, losses, ranks_of
from tests.training.trainer_process import running
from workers.training.config import JobSpec
from workers.training.errors import TrainingFailure
from workers.training.running.checkpoints import list_checkpoints
from workers.training.running.ranks import Rank

EARLIER = "accounts/acme/fine-tuning-jobs/earlier/"

pytestmark = pytest.mark.training


@pytest.fixture
def document(make_spec: Callable[..., JobSpec]) -> Callable[..., tuple[JobSpec, dict[str, Any]]]:
    """A specification for one process, and the same job with its base divided between two."""

    def make(**settings: Any) -> tuple[JobSpec, dict[str, Any]]:
        # Checkpoints come long before the first evaluation after which a job may stop early.
        alone = make_spec(ROWS, batch_size=4, micro_batch_size=1, checkpoint_interval_steps=2, **settings)
        divided = {"processes": 2, "divide_base": True, "output_prefix": TOGETHER}
        return alone, {**alone.model_dump(), **divided}

    return make


@pytest.fixture
def addon(
    document: Callable[..., tuple[JobSpec, dict[str, Any]]],
    object_store: ObjectStore,
    jobs: Any,
    publish: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> dict[str, Any]:
    """What an earlier job has learned of the same rows."""
    jobs.run(document(epochs=1, output_prefix=EARLIER)[0])
    files = [tmp_path / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    for file in files:
        file.write_bytes(object_store.get_bytes(f"{EARLIER}adapter/{file.name}"))
    return publish("dd", *files)


def test_a_divided_base_makes_the_adapter_of_a_whole_one_whatever_happens_on_the_way(
    settings: Settings,
    object_store: ObjectStore,
    jobs: Any,
    document: Callable[..., tuple[JobSpec, dict[str, Any]]],
    addon: dict[str, Any],
    publish: Callable[..., dict[str, Any]],
    jsonl: Callable[..., Path],
    tmp_path: Path,
) -> None:
    # The more of the one is learned, the less is known of the other: the last adapter is not the best.
    others = [{"messages": [row["messages"][0], ROWS[20 - i]["messages"][1]]} for i, row in enumerate(ROWS)]
    held_out = publish("cc", jsonl(others))
    alone, divided = document(
        epochs=8, early_stop=True, evaluation_dataset=held_out, warm_start=addon, sampler_interval_steps=7
    )

    def checkpoints() -> list[int]:
        return list_checkpoints(object_store, TOGETHER)

    with running(settings, tmp_path / "first", divided) as trainer:
        trainer.until(lambda: bool(checkpoints()))
        trainer.process.send_signal(signal.SIGTERM)
        assert trainer.exit_status() == 143, trainer.log()
    assert "Traceback" not in trainer.log()
    stopped_at = checkpoints()[0]

    with running(settings, tmp_path / "second", divided) as trainer:
        trainer.until(lambda: checkpoints()[0] > stopped_at)
        os.kill(ranks_of(trainer)[1], signal.SIGKILL)
        assert trainer.exit_status() == -signal.SIGKILL, trainer.log()
    assert f"going on from the checkpoint of step {stopped_at}" in trainer.log()
    killed_after = checkpoints()[0]

    with running(settings, tmp_path / "third", divided) as trainer:
        assert trainer.exit_status() == 0, trainer.log()
    assert trainer.log().count(f"going on from the checkpoint of step {killed_after}") == 1
    total, *parts = weights_told(trainer.log())
    assert sum(parts) == total
    assert max(parts) <= 0.51 * total
    result = json.loads(object_store.get_bytes(TOGETHER + "result.json"))
    assert (result["outcome"], result["report"]["resumed_from_step"]) == ("succeeded", killed_after)
    progress = json.loads(object_store.get_bytes(TOGETHER + "progress.json"))
    assert (progress["settings"]["processes"], progress["settings"]["shards"]) == (2, 2)

    _, report = jobs.run(alone)
    assert any("was kept" in warning for warning in report.warnings)
    assert result["report"]["stopped_early"] == report.stopped_early
    assert losses(object_store, TOGETHER) == pytest.approx(losses(object_store, JOB_PREFIX), rel=1e-3)
    for when, scores in report.evaluation.items():
        assert result["report"]["evaluation"][when] == pytest.approx(scores, rel=1e-3)
    for folder in ("adapter", "samplers/sampler-14"):
        assert_same_adapter(object_store, folder)


def test_pairs_are_compared_over_a_divided_base_with_what_a_job_went_on_from(
    settings: Settings,
    object_store: ObjectStore,
    jobs: Any,
    make_spec: Callable[..., JobSpec],
    addon: dict[str, Any],
    tmp_path: Path,
) -> None:
    alone = make_spec(
        PAIRS[:9],
        kind="preference",
        preference={"method": "dpo"},
        batch_size=4,
        micro_batch_size=1,
        epochs=1,
        evaluation=True,
        warm_start=addon,
    )
    divided = {**alone.model_dump(), "processes": 2, "divide_base": True, "output_prefix": TOGETHER}
    with running(settings, tmp_path / "run", divided) as trainer:
        assert trainer.exit_status() == 0, trainer.log()
    _, report = jobs.run(alone)

    result = json.loads(object_store.get_bytes(TOGETHER + "result.json"))
    assert losses(object_store, TOGETHER) == pytest.approx(losses(object_store, JOB_PREFIX), rel=1e-3)
    for when, scores in report.evaluation.items():
        assert result["report"]["evaluation"][when] == pytest.approx(scores, rel=1e-3, abs=1e-5)
    assert_same_adapter(object_store, "adapter")


def assert_same_adapter(store: ObjectStore, folder: str) -> None:
    """Of the job of one process, and of that of two."""
    alone, divided = (
        load(store.get_bytes(f"{prefix}{folder}/adapter_model.safetensors"))
        for prefix in (JOB_PREFIX, TOGETHER)
    )
    assert alone.keys() == divided.keys()
    for name, weights in alone.items():
        torch.testing.assert_close(divided[name], weights, rtol=1e-3, atol=1e-4)


def weights_told(log: str) -> list[int]:
    """How many the base has, and then how many each process holds."""
    found = re.search(r"the base's ([\d,]+) weights are divided among 2 processes: ([\d,]+), ([\d,]+)", log)
    assert found, log
    return [int(number.replace(",", "")) for number in found.groups()]


def test_a_model_whose_layers_were_not_divided_is_refused(tiny_model: Path) -> None:
    """As those are whose layers have other names than most: all of it would be put together at once."""
    from workers.training.model.base import AutoModelForCausalLM
    from workers.training.model.divided import check_divided

    whole = AutoModelForCausalLM.from_pretrained(tiny_model)
    with pytest.raises(TrainingFailure, match="its layers cannot be divided") as refused:
        check_divided(whole, "accounts/acme/models/odd", Rank(0, 2))
    assert (refused.value.code, refused.value.reason) == ("FAILED_PRECONDITION", "CANNOT_BE_DIVIDED")
