"""A job at work: what it is to do, and what it does it with."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.storage import ObjectStore
from workers.training.config import JobSpec
from workers.training.outcome.result import Report
from workers.training.running.pace import Pace
from workers.training.running.progress import ProgressReport
from workers.training.running.stop import StopRequest

log = logging.getLogger(__name__)

MOST_WARNINGS = 100
"""More stand in the log only: whoever has read so many knows."""


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
    pace: Pace = field(default_factory=Pace, repr=False)

    def warn(self, *warnings: str) -> None:
        """Tell the job's owner: in its log and its progress at once, and in its result and its card."""
        for warning in warnings:
            log.warning("%s", warning)
        kept = self.report.warnings
        kept += warnings[: MOST_WARNINGS - len(kept)]
        self.progress.update(warnings=tuple(kept))

    @property
    def best_folder(self) -> Path:
        return self.work_dir / "best"

    @property
    def checkpoints_folder(self) -> Path:
        return self.work_dir / "checkpoints"
