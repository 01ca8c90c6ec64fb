"""All of a job that comes before its model is loaded: done once, whatever the number of its processes."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.training.examples.tokenizer import load_tokenizer
from workers.training.inputs import Inputs, stage_inputs
from workers.training.job import Job
from workers.training.model.footprint import Fit, Way
from workers.training.model.placement import Node, place_job
from workers.training.objectives.objective import Examples, Objective
from workers.training.plan import StepPlan, micro_batch_size, plan_steps
from workers.training.running.checkpoints import BEST_ADAPTER, METRICS_FILE, JobState, restore_newest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What every process of the job goes on with. It can be pickled; the examples stay on the disk."""

    inputs: Inputs
    tokenizer: Any
    examples: Examples
    fit: Fit
    plan: StepPlan
    restored: Path | None
    """The folder of the checkpoint to go on from."""


def prepare(job: Job, objective: Objective) -> Prepared:
    """Raises TrainingFailure for what can be known to fail before anything is trained."""
    inputs = stage_inputs(job)
    tokenizer = load_tokenizer(inputs.base, job.spec.base_model.name)
    job.progress.update(phase="VALIDATING")
    examples = objective.prepare_examples(job, inputs, tokenizer)
    job.progress.update(rows=job.report.rows_trained)
    restored = restore_checkpoint(job)
    fit = place(job, objective, inputs, examples, JobState.read(restored).way)
    plan = plan_job(job, examples, fit)
    return Prepared(inputs, tokenizer, examples, fit, plan, restored)


def place(job: Job, objective: Objective, inputs: Inputs, examples: Examples, kept: Way | None = None) -> Fit:
    """How the job runs here: as an earlier attempt did (`kept`), while there is room for that."""
    spec = job.spec
    micro = micro_batch_size(spec, examples.longest)
    row = objective.texts_of_a_row * (spec.batch_tokens or examples.longest)
    fit = place_job(spec, inputs.base, micro, row, Node.here(spec.processes), kept)
    if kept and fit.way != kept:
        job.warn(
            "the job went on in another way, since there was less memory than before: its sums are in "
            "another order, and the last digits of its adapter may differ"
        )
    where = f"divided among {spec.processes} processes" if fit.is_divided else "whole in each process"
    log.info("the base is %s; %d rows at once need %s", where, fit.micro_batch_size, fit.footprint)
    return fit


def plan_job(job: Job, examples: Examples, fit: Fit) -> StepPlan:
    plan = plan_steps(job.spec, len(examples.train), fit.micro_batch_size)
    job.report.steps, job.report.steps_per_epoch = plan.max_steps, plan.steps_per_epoch
    job.report.micro_batch_size = plan.micro_batch_size
    job.warn(*plan.warnings)
    return plan


def restore_checkpoint(job: Job) -> Path | None:
    """The folder of the checkpoint to go on from, if an earlier attempt left a good one."""
    found = restore_newest(job.store, job.spec.output_prefix, job.checkpoints_folder)
    if found is None:
        return None
    folder, step = found
    log.info("going on from the checkpoint of step %d", step)
    job.report.resumed_from_step = step
    job.progress.resume_metrics(folder / METRICS_FILE)
    if (folder / BEST_ADAPTER).exists():
        job.best_folder.mkdir()
        shutil.copyfile(folder / BEST_ADAPTER, job.best_folder / "adapter_model.safetensors")
    return folder
