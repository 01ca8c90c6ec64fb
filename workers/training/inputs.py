"""What a job reads, brought to the node: models to its cache, datasets to the job's own folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from workers.runtimes.cache_uses import keeper_here
from workers.runtimes.node_cache import stage_adapter, stage_model
from workers.training.config import Source
from workers.training.job import Job


@dataclass(frozen=True)
class Inputs:
    base: Path
    warm_start: Path | None
    dataset: list[Path]
    evaluation_dataset: list[Path]


def stage_inputs(job: Job) -> Inputs:
    job.progress.update(phase="STAGING")
    shutil.rmtree(job.work_dir, ignore_errors=True)
    job.work_dir.mkdir(parents=True)
    spec = job.spec
    keeper = keeper_here(job.cache_dir, os.environ)
    base = stage_model(job.store, spec.base_model.prefix, spec.base_model.files, job.cache_dir, keeper=keeper)
    warm = spec.warm_start
    return Inputs(
        base=base,
        warm_start=stage_adapter(job.store, warm.prefix, warm.files, job.cache_dir, keeper=keeper)
        if warm
        else None,
        dataset=[path for source in spec.datasets for path in stage_dataset(job, source)],
        evaluation_dataset=stage_dataset(job, spec.evaluation_dataset) if spec.evaluation_dataset else [],
    )


def stage_dataset(job: Job, source: Source) -> list[Path]:
    folder = stage_model(job.store, source.prefix, source.files, job.work_dir / "inputs", uid=source.uid)
    return [folder / file.name for file in source.files]
