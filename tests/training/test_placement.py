"""Where a job's model runs: what the node has, what is refused before any weights are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from controlplane.resources.fine_tuning_jobs.states import can_resume
from controlplane.storage import ObjectStore
from workers.training import prepare
from workers.training.config import InputFile, JobSpec
from workers.training.errors import TrainingFailure
from workers.training.model import placement
from workers.training.model.footprint import GIB, USABLE, Fit, Way
from workers.training.model.placement import (
    Node,
    attention_kernel,
    available_memory,
    parameter_count,
    place_job,
    precision,
)
from workers.training.objectives.objective import Examples
from workers.training.running.checkpoints import METRICS_FILE, JobState, upload_checkpoint

MakeSpec = Callable[..., JobSpec]
ROWS = [{"messages": [{"role": "user", "content": "sky"}, {"role": "assistant", "content": "blue"}]}]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Devices as torch would list them: only their number and their memory are looked at."""

    class Device:
        def __init__(self, total_memory: int) -> None:
            self.total_memory = total_memory

    def pretend(*gibibytes: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gibibytes))
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda number: Device(gibibytes[number] * GIB)
        )

    return pretend


def test_processes_on_the_cpu_share_its_memory() -> None:
    alone, shared = Node.here(1), Node.here(4)
    assert not alone.on_gpu
    assert shared.available == pytest.approx(alone.available / 4, rel=0.2)


def test_a_container_has_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB}\n")
    monkeypatch.setattr(placement, "CGROUP", tmp_path)
    assert available_memory() == 2 * GIB
    # The weights that were just fetched lie in the cache of files, which is given up when it is needed.
    (tmp_path / "memory.stat").write_text(
        f"anon {GIB // 2}\ninactive_file {GIB // 4}\nactive_file {GIB // 4}\n"
    )
    assert available_memory() == 2 * GIB + GIB // 2
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() > 2 * GIB


def test_the_smallest_accelerator_counts_and_too_few_are_refused(gpus: Callable[..., None]) -> None:
    gpus(80, 40)
    assert Node.here(2) == Node(True, 40 * GIB)
    with pytest.raises(TrainingFailure) as refused:
        Node.here(4)
    assert (refused.value.reason, "gave it 2" in refused.value.message) == ("TOO_FEW_ACCELERATORS", True)
    assert can_resume("FAILED", refused.value.code, refused.value.reason), "another node may have more"


def test_precision_and_kernels_are_those_of_the_place(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, four_bits = make_spec(ROWS), make_spec(ROWS, quantize_base=True)
    large = replace_size(small, 5 * GIB)
    found = [precision(spec, on_gpu) for spec in (small, large, four_bits) for on_gpu in (False, True)]
    full, half = torch.float32, torch.bfloat16
    assert found == [full, half, half, half, half, half]
    monkeypatch.setattr(placement, "is_flash_attn_2_available", lambda: True)
    assert (attention_kernel(True), attention_kernel(False)) == ("flash_attention_2", "sdpa")
    monkeypatch.setattr(placement, "is_flash_attn_2_available", lambda: False)
    assert attention_kernel(True) == "sdpa"


def replace_size(spec: JobSpec, size: int) -> JobSpec:
    """The same job on a base model whose weights are so large, as its registration says."""
    files = tuple(
        file.model_copy(update={"size": size}) if file.name.endswith(".safetensors") else file
        for file in spec.base_model.files
    )
    return spec.model_copy(update={"base_model": spec.base_model.model_copy(update={"files": files})})


def test_a_job_that_cannot_fit_is_refused_with_the_numbers(make_spec: MakeSpec, tiny_model: Path) -> None:
    spec = replace_size(make_spec(ROWS), 400 * GIB)
    with pytest.raises(TrainingFailure) as refused:
        place_job(spec, tiny_model, 4, 128, Node(True, 80 * GIB))
    assert (refused.value.code, refused.value.reason) == ("RESOURCE_EXHAUSTED", "DOES_NOT_FIT")
    for words in (spec.base_model.name, "200.0 for the base", "80.0 GiB are there", "for each accelerator"):
        assert words in refused.value.message


def test_the_refusal_names_the_accelerators_that_the_jobs_batches_could_be_shared_by(
    make_spec: MakeSpec, tiny_model: Path, tmp_path: Path
) -> None:
    spec = replace_size(make_spec(ROWS, batch_size=24), 400 * GIB)
    config = json.loads((tiny_model / "config.json").read_text()) | {"num_hidden_layers": 100}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # 200 GiB in 16 bits: parts of 40 GiB, if the 24 rows of a batch could be shared by five.
    with pytest.raises(TrainingFailure, match=r"divided among 6 accelerators \(acceleratorCount\)"):
        place_job(spec, tmp_path, 4, 128, Node(True, 60 * GIB))
    # The processes of a CPU have one memory.
    with pytest.raises(TrainingFailure) as refused:
        place_job(spec, tmp_path, 4, 128, Node(False, 80 * GIB))
    assert "accelerators" not in refused.value.message


def test_a_model_that_comes_in_two_formats_is_counted_once(make_spec: MakeSpec) -> None:
    spec = make_spec(ROWS)
    counted = parameter_count(spec, {"dtype": "float32"})
    files = (*spec.base_model.files, InputFile(name="pytorch_model.bin", size=GIB))
    both = spec.model_copy(update={"base_model": spec.base_model.model_copy(update={"files": files})})
    assert parameter_count(both, {"dtype": "float32"}) == counted
    assert precision(replace_size(both, 3 * GIB), on_gpu=False) == torch.float32


def test_a_job_that_fits_runs_as_fast_as_it_can(make_spec: MakeSpec, tiny_model: Path) -> None:
    fit = place_job(make_spec(ROWS), tiny_model, 4, 128, Node(False, 2 * GIB))
    assert (fit.micro_batch_size, fit.load.checkpointing) == (4, False)
    assert fit.footprint.total < GIB


def test_an_attempt_runs_as_the_one_before_it_did_while_there_is_room(
    jobs: Any, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = make_spec(ROWS)
    examples: Any = Examples(range(8), None, longest=128)
    objective: Any = SimpleNamespace(prepare_examples=lambda *_: examples, texts_of_a_row=1)

    def attempt(memory: int) -> tuple[Fit, list[str]]:
        monkeypatch.setattr(Node, "here", lambda processes: Node(False, memory))
        job = jobs.job(spec)
        return prepare.prepare(job, objective).fit, job.report.warnings

    roomy, _ = attempt(2 * GIB)
    tight = int(roomy.footprint.total / USABLE) - 1
    first, _ = attempt(tight)
    assert (roomy.way, first.way) == (Way(8, False, 1), Way(8, True, 1))

    leave_checkpoint(jobs.store, spec, tmp_path / "checkpoint", first.way)
    assert attempt(2 * GIB) == (first, [])
    fewer, (warning,) = attempt(int(first.footprint.total / USABLE) - 1)
    assert fewer.micro_batch_size < 8
    assert "less memory than before" in warning


def leave_checkpoint(store: ObjectStore, spec: JobSpec, folder: Path, way: Way) -> None:
    folder.mkdir()
    for name in ("adapter_model.safetensors", "optimizer.pt", METRICS_FILE):
        (folder / name).touch()
    JobState(way=way).write(folder)
    upload_checkpoint(store, spec.output_prefix, folder, 3)


@pytest.mark.training
def test_the_trainer_refuses_before_it_reads_any_weights(
    jobs: Any, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = replace(Node.here(1), available=GIB // 8)
    monkeypatch.setattr(prepare.Node, "here", lambda processes: node)
    monkeypatch.setattr(
        "workers.training.trainer.load_model", lambda *parts: pytest.fail("weights were read")
    )
    with pytest.raises(TrainingFailure) as refused:
        jobs.run(make_spec(ROWS))
    assert refused.value.reason == "DOES_NOT_FIT"
