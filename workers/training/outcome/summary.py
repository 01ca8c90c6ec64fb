"""The metrics of a job that trained to its end."""

from __future__ import annotations

from typing import Any

from workers.training.job import Job
from workers.training.outcome.evaluate import Evaluation


def summarize(job: Job, trainer: Any, evaluation: Evaluation | None, seconds: float) -> dict[str, Any]:
    """The job's metrics, named as the original names them."""
    job.report.stopped_early = trainer.state.global_step < job.report.steps
    losses = [line["loss"] for line in job.progress.metrics if "loss" in line]
    trained_steps = trainer.state.global_step - job.report.resumed_from_step
    metrics: dict[str, Any] = {
        "train_runtime": round(seconds, 2),
        "train_samples_per_second": round(trained_steps * job.spec.batch_size / max(seconds, 1e-3), 3),
        "train_steps_per_second": round(trained_steps / max(seconds, 1e-3), 3),
        "total_flos": trainer.state.total_flos,
        "train_loss": sum(losses) / max(1, len(losses)),
        "epoch": round(trainer.state.epoch or 0.0, 4),
        "tokens_seen": job.progress.now.tokens_seen,
    }
    if losses and losses[-1] > 1.5 * losses[0]:
        job.report.warnings.append(
            f"the loss rose from {losses[0]:.3f} to {losses[-1]:.3f}; a smaller learning rate may help"
        )
    if evaluation:
        scores = evaluation.scores()
        metrics |= {"eval_loss": scores.pop("loss"), **scores}
    if job.progress.now.wandb_url:
        metrics["wandb_url"] = job.progress.now.wandb_url
    return metrics
