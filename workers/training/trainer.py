"""The trainer of a job: its model, its arguments, and what happens between its steps."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from transformers.trainer_callback import PrinterCallback

from workers.training.config import JobSpec
from workers.training.effective import effective_settings
from workers.training.job import Job
from workers.training.model.base import load_model, new_adapter, open_adapter
from workers.training.model.divided import evaluated_together
from workers.training.model.footprint import Fit
from workers.training.objectives.objective import Objective, TrainerParts
from workers.training.plan import StepPlan
from workers.training.prepare import Prepared
from workers.training.running.callbacks import EndAtOnce, EvaluateHeldOut, KeepCheckpoints, ReportSteps
from workers.training.running.checkpoints import JobState
from workers.training.running.ranks import Rank
from workers.training.running.samplers import KeepSamplers
from workers.training.running.together import FollowFirst, StopOfAll, WaitForRanks


def build_trainer(
    job: Job, rank: Rank, objective: Objective, prepared: Prepared
) -> tuple[Any, EvaluateHeldOut | None]:
    """The trainer, and the evaluation if rows are held out."""
    examples, tokenizer = prepared.examples, prepared.tokenizer
    model, peft_config = adapted_model(job.spec, prepared, rank)
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)  # Masked wherever it stands.
    state = JobState.read(prepared.restored)
    state.way = prepared.fit.way
    held_out = None
    if examples.held_out is not None and prepared.fit.is_divided:
        together, stop = evaluated_together(rank, objective), StopOfAll(rank, job.stop)
        held_out = EvaluateHeldOut(job, prepared.plan, examples, together, state, stop)
    elif examples.held_out is not None and rank.is_first:
        held_out = EvaluateHeldOut(job, prepared.plan, examples, objective, state, job.stop)
    arguments = training_arguments(job, prepared.plan, prepared.fit)
    callbacks = callbacks_of(job, rank, prepared.plan, held_out, state)
    trainer = objective.make_trainer(
        TrainerParts(job, rank, model, peft_config, tokenizer, examples, arguments, callbacks)
    )
    trainer.remove_callback(PrinterCallback)
    if held_out:
        held_out.trainer = trainer
    job.progress.update(settings=effective_settings(job.spec, trainer, prepared.fit))
    return trainer, held_out


def adapted_model(spec: JobSpec, prepared: Prepared, rank: Rank) -> tuple[Any, LoraConfig | None]:
    """The model with the adapter that it goes on from, or the model and what its adapter is to be."""
    inputs = prepared.inputs
    model = load_model(spec, inputs.base, rank, prepared.fit.is_divided)
    if spec.warm_start and inputs.warm_start:
        return open_adapter(model, inputs.warm_start, spec.warm_start, spec.lora_dropout), None
    return model, new_adapter(spec, model)


def callbacks_of(
    job: Job, rank: Rank, plan: StepPlan, held_out: EvaluateHeldOut | None, state: JobState
) -> list[Any]:
    """In the order in which they are called. The first rank decides, and the others do the same."""
    samplers = KeepSamplers(job) if job.spec.sampler_interval_steps else None
    own = (ReportSteps(job, plan, state), held_out, samplers, KeepCheckpoints(job, state))
    found = [callback for callback in (own if rank.is_first else (held_out,)) if callback]
    return [*(found if rank.is_alone else [WaitForRanks(), *found, FollowFirst(rank)]), EndAtOnce()]


def training_arguments(job: Job, plan: StepPlan, fit: Fit) -> dict[str, Any]:
    """Of `transformers.TrainingArguments`, the same for every objective."""
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(job.checkpoints_folder),
        "max_steps": plan.max_steps,
        "per_device_train_batch_size": plan.micro_batch_size,
        "gradient_accumulation_steps": plan.accumulation,
        "learning_rate": job.spec.learning_rate,
        "lr_scheduler_type": job.spec.lr_scheduler_type,
        "warmup_steps": job.spec.warmup_steps,
        "weight_decay": job.spec.weight_decay,
        "max_grad_norm": 1.0,
        "seed": job.spec.seed,
        "data_seed": job.spec.seed,
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "gradient_checkpointing": fit.load.checkpointing,
        # Checkpoints and evaluations are the callbacks'.
        "save_strategy": "no",
        "save_total_limit": 2,
        "eval_strategy": "no",
        "logging_steps": plan.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "dataloader_pin_memory": on_gpu,
        "disable_tqdm": True,
    }
