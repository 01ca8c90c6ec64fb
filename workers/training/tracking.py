"""Logging to Weights & Biases, for jobs that ask for it."""

from __future__ import annotations

import os
from pathlib import Path

from workers.training.config import JobSpec
from workers.training.errors import TrainingFailure


def start_tracking(spec: JobSpec, work_dir: Path) -> list[str]:
    """The trainer's `report_to`; sets what its integration reads. Raises TrainingFailure."""
    if spec.wandb is None:
        return []
    key = os.environ.get(spec.wandb.api_key_env)
    if not key:
        raise _unavailable(f"the environment variable {spec.wandb.api_key_env} holds no API key")
    try:
        import wandb  # noqa: F401
    except ImportError:
        raise _unavailable("the package wandb is not installed where jobs are trained") from None
    os.environ["WANDB_API_KEY"] = key
    os.environ["WANDB_PROJECT"] = spec.wandb.project
    os.environ["WANDB_DIR"] = str(work_dir)
    os.environ["WANDB_SILENT"] = "true"
    if spec.wandb.entity:
        os.environ["WANDB_ENTITY"] = spec.wandb.entity
    return ["wandb"]


def tracking_url(spec: JobSpec) -> str | None:
    """The address of the job's run there."""
    if spec.wandb is None:
        return None
    import wandb

    return str(wandb.run.url) if wandb.run and wandb.run.url else None


def _unavailable(why: str) -> TrainingFailure:
    return TrainingFailure(
        "FAILED_PRECONDITION", "WANDB_UNAVAILABLE", f"the job cannot log to Weights & Biases: {why}"
    )
