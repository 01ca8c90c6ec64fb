"""A job at work: what it is to do, and what it does it with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from controlplane.storage import ObjectStore
from workers.training.config import JobSpec
from workers.training.outcome.result import Report
from workers.training.running.progress import ProgressReport
from workers.training.running.stop import StopRequest


@dataclass(frozen=True)
class Job:
    spec: JobSpec
    store: ObjectStore
    progress: ProgressReport
    stop: StopRequest
    report: Report
    cache_dir: Path
    """Shared by all jobs of the node."""
    work_dir: Path
    """The job's own; emptied at the start."""
    wandb_key: str = field(default="", repr=False)

    @property
    def best_folder(self) -> Path:
        return self.work_dir / "best"

    @property
    def checkpoints_folder(self) -> Path:
        return self.work_dir / "checkpoints"
