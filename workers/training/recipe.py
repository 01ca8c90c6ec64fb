"""A fine-tuning job, from its inputs to its adapter. Read `fine_tune`; the rest follows in its order.

What differs by kind of job is its objective (`objective.py` says what one is; `supervised.py` is the first):
how rows become examples, which trainer they go to, and how held-out ones are evaluated. What looks at a job
on its way plugs in beside it: what is checked before the model is loaded in `prepare.py`, what happens
between steps in `callbacks.py`, what is told at the end in `summary.py`.
"""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from workers.training.job import Job
from workers.training.model.adapter import load_weights, upload_adapter, write_adapter
from workers.training.model.base import set_threads
from workers.training.objectives.objective import objective_of
from workers.training.outcome.card import write_card
from workers.training.outcome.evaluate import Evaluation
from workers.training.outcome.summary import summarize
from workers.training.prepare import prepare
from workers.training.running.callbacks import EvaluateHeldOut, NothingLeft
from workers.training.running.ranks import Rank
from workers.training.running.together import StopOfAll, from_first, join, leave
from workers.training.running.tracking import tracked
from workers.training.trainer import build_trainer

log = logging.getLogger(__name__)


def fine_tune(job: Job) -> dict[str, Any]:
    """Train the job's adapter, upload it, and return the metrics. Raises what `errors` can describe.

    Runs in every process of the job; the first does what is done once, and alone has metrics to return.
    """
    set_threads()
    rank = join()
    objective = objective_of(job.spec.kind)
    prepared = from_first(rank, lambda: prepare(job, objective))
    with tracked(job) if rank.is_first else nullcontext():
        trainer, held_out = build_trainer(job, rank, objective, prepared)
        seconds = train(job, rank, trainer, prepared.restored)
        if not prepared.fit.is_divided:
            leave(rank)
        evaluation = evaluate_result(job, trainer, held_out)
    leave(rank)
    if not rank.is_first:
        return {}
    upload(job, trainer)
    return summarize(job, trainer, evaluation, seconds)


def train(job: Job, rank: Rank, trainer: Any, restored: Path | None) -> float:
    """Returns the seconds that it took. Raises Interrupted, after a checkpoint, when asked to stop."""
    started = time.monotonic()
    with job.stop.deferred():
        with suppress(NothingLeft):
            trainer.train(resume_from_checkpoint=str(restored) if restored else None)
        StopOfAll(rank, job.stop).carry_out()
    return time.monotonic() - started


def evaluate_result(job: Job, trainer: Any, held_out: EvaluateHeldOut | None) -> Evaluation | None:
    """Evaluate the adapter that is kept: the last one or, with early stopping, the best."""
    if held_out is None:
        return None
    with job.stop.deferred():
        return evaluate_kept(job, trainer, held_out)


def evaluate_kept(job: Job, trainer: Any, held_out: EvaluateHeldOut) -> Evaluation | None:
    state, step = held_out.state, trainer.state.global_step
    evaluation = held_out.evaluate(step)
    held_out.stop.carry_out()
    if job.spec.early_stop and state.best_step != step and state.best_loss is not None:
        if trainer.is_world_process_zero():
            kept = f"the adapter of step {state.best_step} of {step} was kept"
            job.warn(f"{kept}: it has the best evaluation loss")
        load_weights(trainer.model, job.best_folder / "adapter_model.safetensors")
        evaluation = held_out.look()
    if evaluation is not None:
        evaluation = held_out.asked(step, evaluation, state.best_step if job.spec.early_stop else step)
        job.report.evaluation = {"before": state.before, "after": evaluation.as_message()}
    held_out.stop.carry_out()
    return evaluation


def upload(job: Job, trainer: Any) -> None:
    job.progress.update(phase="UPLOADING", eta_seconds=0.0)
    job.progress.draw_soon()
    folder = job.work_dir / "adapter"
    names = [*write_adapter(trainer.model, folder, job.spec), write_card(folder, job)]
    log.info("uploading the adapter")
    upload_adapter(job.store, job.spec, folder, names)
    log.info("the adapter is uploaded")
