"""The metrics of a job that trained to its end."""

from __future__ import annotations

from typing import Any

from workers.training.job import Job
from workers.training.outcome.evaluate import Evaluation


def summarize(job: Job, trainer: Any, evaluation: Evaluation | None, seconds: float) -> dict[str, Any]:
    """The job's metrics, named as the original names them."""
    job.report.stopped_early = trainer.state.global_step < job.report.steps
    losses = [(line["step"], line["loss"]) for line in job.progress.metrics if "loss" in line]
    trained_steps = trainer.state.global_step - job.report.resumed_from_step
    metrics: dict[str, Any] = {
        "train_runtime": round(seconds, 2),
        "train_samples_per_second": round(rows_of(job, trained_steps) / max(seconds, 1e-3), 3),
        "train_steps_per_second": round(trained_steps / max(seconds, 1e-3), 3),
        "total_flos": trainer.state.total_flos,
        "train_loss": mean_loss(losses),
        "epoch": round(trainer.state.epoch or 0.0, 4),
        "tokens_seen": job.progress.now.tokens_seen,
    }
    if job.progress.now.tokens_per_second:
        metrics["tokens_per_second"] = job.progress.now.tokens_per_second
    warn_of_rise(job, [loss for _, loss in losses])
    if evaluation:
        scores = evaluation.scores()
        metrics |= {"eval_loss": scores.pop("loss"), **scores}
    if job.progress.now.wandb_url:
        metrics["wandb_url"] = job.progress.now.wandb_url
    return metrics


def rows_of(job: Job, steps: int) -> float:
    """Rows of so many steps, whatever a step takes: examples of a row, or packs of rows."""
    return job.report.rows_trained * steps / max(1, job.report.steps_per_epoch)


def mean_loss(losses: list[tuple[int, float]]) -> float:
    """Over all steps: what was logged after a step is the mean over the steps since it was logged before."""
    total, before = 0.0, 0
    for step, loss in losses:
        total, before = total + loss * (step - before), step
    return total / max(1, before)


def warn_of_rise(job: Job, losses: list[float]) -> None:
    if losses and losses[-1] > 1.5 * losses[0]:
        job.warn(f"the loss rose from {losses[0]:.3f} to {losses[-1]:.3f}; a smaller learning rate may help")
