"""A fine-tuning job, from its inputs to its adapter. Read `fine_tune`; the rest follows in its order."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from controlplane.storage import ObjectStore
from workers.runtimes.node_cache import stage_adapter, stage_model
from workers.training.adapter import load_weights, upload_adapter, write_adapter
from workers.training.callbacks import EvaluateHeldOut, KeepCheckpoints, ReportSteps
from workers.training.checkpoints import BEST_ADAPTER, METRICS_FILE, JobState, restore_newest
from workers.training.config import JobSpec, Source
from workers.training.dataset import Tokenized, open_examples, pack_examples, split_rows, tokenize
from workers.training.encoding import Encoder
from workers.training.errors import TrainingFailure
from workers.training.evaluate import Evaluation
from workers.training.model import (
    context_length,
    load_model,
    load_tokenizer,
    new_adapter,
    open_adapter,
    set_threads,
    stop_token_ids,
    template_tokens,
    wants_gradient_checkpointing,
)
from workers.training.plan import StepPlan, plan_steps
from workers.training.progress import ProgressReport
from workers.training.renderer import TemplateRenderer
from workers.training.result import Report
from workers.training.rows import CompletionReader, ConversationReader, read_rows, require_template
from workers.training.stop import StopRequest
from workers.training.templates import TemplateProblem
from workers.training.tracking import start_tracking, tracking_url

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job at work: what it is to do, and what it does it with."""

    spec: JobSpec
    store: ObjectStore
    progress: ProgressReport
    stop: StopRequest
    report: Report
    cache_dir: Path
    """Shared by all jobs of the node."""
    work_dir: Path
    """The job's own; emptied at the start."""

    @property
    def best_folder(self) -> Path:
        return self.work_dir / "best"


@dataclass(frozen=True)
class Inputs:
    base: Path
    warm_start: Path | None
    dataset: list[Path]
    evaluation_dataset: list[Path]


@dataclass(frozen=True)
class Examples:
    train: Any
    held_out: Any | None


def fine_tune(job: Job) -> dict[str, Any]:
    """Train the job's adapter, upload it, and return the metrics. Raises what `errors` can describe."""
    set_threads()
    inputs = stage_inputs(job)
    tokenizer = load_tokenizer(inputs.base, job.spec.base_model.name)
    examples = prepare_examples(job, inputs, tokenizer)
    job.progress.update(rows=job.report.rows_trained)
    if job.spec.batch_tokens:
        packs = pack_examples(examples.train, job.spec.batch_tokens, job.work_dir / "packs.arrow")
        examples = Examples(packs, examples.held_out)
    plan = plan_job(job, examples.train)
    restored = restore_checkpoint(job)
    trainer, held_out = build_trainer(job, inputs, tokenizer, examples, plan, restored)
    started = time.monotonic()
    with job.stop.deferred():
        trainer.train(resume_from_checkpoint=str(restored) if restored else None)
    seconds = time.monotonic() - started
    evaluation = evaluate_result(job, trainer, held_out)
    job.progress.update(phase="UPLOADING", eta_seconds=0.0)
    folder = job.work_dir / "adapter"
    upload_adapter(job.store, job.spec, folder, write_adapter(trainer.model, folder, job.spec))
    return summarize(job, trainer, evaluation, seconds)


def stage_inputs(job: Job) -> Inputs:
    """Bring models to the node's cache, and datasets to the job's own folder."""
    job.progress.update(phase="STAGING")
    shutil.rmtree(job.work_dir, ignore_errors=True)
    job.work_dir.mkdir(parents=True)
    spec = job.spec
    base = stage_model(job.store, spec.base_model.prefix, spec.base_model.files, job.cache_dir)
    warm = spec.warm_start
    return Inputs(
        base=base,
        warm_start=stage_adapter(job.store, warm.prefix, warm.files, job.cache_dir) if warm else None,
        dataset=[path for source in spec.datasets for path in stage_dataset(job, source)],
        evaluation_dataset=stage_dataset(job, spec.evaluation_dataset) if spec.evaluation_dataset else [],
    )


def stage_dataset(job: Job, source: Source) -> list[Path]:
    folder = stage_model(job.store, source.prefix, source.files, job.work_dir / "inputs", uid=source.uid)
    return [folder / file.name for file in source.files]


def prepare_examples(job: Job, inputs: Inputs, tokenizer: Any) -> Examples:
    """Tokenize the datasets, and hold rows out for evaluation where the job asks for it."""
    job.progress.update(phase="TOKENIZING")
    encoder = Encoder(tokenizer, stop_token_ids(inputs.base, tokenizer))
    tokenized = tokenize_datasets(job, inputs, tokenizer, encoder)
    counts = tokenized[0].counts
    job.report.count(counts)
    log.info("%d rows, %d tokens, %d of them trained", counts.rows_in, counts.tokens, counts.trained_tokens)
    examples = open_examples(tokenized[0])
    if len(tokenized) > 1:
        job.report.rows_evaluated = tokenized[1].counts.rows_trained
        return Examples(examples, open_examples(tokenized[1]))
    if not job.spec.evaluates or not job.spec.evaluation_split:
        return Examples(examples, None)
    return hold_out(job, examples)


def tokenize_datasets(job: Job, inputs: Inputs, tokenizer: Any, encoder: Encoder) -> list[Tokenized]:
    """The training dataset, and the evaluation dataset if the job names one."""
    cutoff = cutoff_length(job, inputs.base)
    wanted = [("train", inputs.dataset), ("evaluation", inputs.evaluation_dataset)]
    targets = [(files, job.work_dir / f"{name}.arrow") for name, files in wanted if files]
    if job.spec.kind == "text_completion":
        job.report.masking = "completion"
        completion = CompletionReader(encoder, job.spec.input_template or "", job.spec.output_template or "")
        return [
            tokenize(files, completion, encoder, encoder.leading_ids, cutoff, target)
            for files, target in targets
        ]
    template = require_template(job.spec.jinja_template, tokenizer.chat_template, job.spec.base_model.name)
    with open_template(template, template_tokens(tokenizer)) as renderer:
        job.report.masking = renderer.way
        conversation = ConversationReader(renderer, encoder, template)
        leading = leading_tokens(job, conversation, inputs.dataset, tokenizer)
        return [tokenize(files, conversation, encoder, leading, cutoff, target) for files, target in targets]


def open_template(template: str, tokens: dict[str, str]) -> TemplateRenderer:
    try:
        return TemplateRenderer(template, tokens)
    except TemplateProblem as problem:
        raise TrainingFailure(
            "INVALID_ARGUMENT", "TEMPLATE_ERROR", f"the chat template cannot be used: {problem}"
        ) from None


def leading_tokens(job: Job, reader: ConversationReader, files: Sequence[Path], tokenizer: Any) -> list[int]:
    """The BOS token where serving starts with it and training text does not, as the `unk_token` way has it.

    Looks at the first row; also reports when the prompt that serving makes is not how training text starts.
    """
    row = next(read_rows(files), None)
    if row is None:
        return []
    trained, prompt = reader.read(row)[-1].text, reader.read_prompt(row)
    bos = tokenizer.bos_token or ""
    adds_bos = bool(bos) and prompt.startswith(bos) and not trained.startswith(bos)
    if not (bos + trained if adds_bos else trained).startswith(prompt):
        job.report.warnings.append(
            "the prompt that the template makes when the model is served differs from what stands before the "
            "answer in training"
        )
    return [tokenizer.bos_token_id] if adds_bos else []


def cutoff_length(job: Job, base: Path) -> int:
    limit = context_length(base)
    if not limit or job.spec.cutoff_length <= limit:
        return job.spec.cutoff_length
    job.report.warnings.append(f"rows are cut at {limit} tokens, the context length of the base model")
    return limit


def hold_out(job: Job, examples: Any) -> Examples:
    train, held_out = split_rows(examples["row"][:], job.spec.evaluation_split, job.spec.seed)
    if not held_out:
        job.report.warnings.append("nothing was evaluated: of a single row none can be held out")
        return Examples(examples, None)
    rows = examples["row"]
    job.report.rows_evaluated = len({rows[i] for i in held_out})
    job.report.rows_trained -= job.report.rows_evaluated
    return Examples(examples.select(train), examples.select(held_out))


def plan_job(job: Job, examples: Any) -> StepPlan:
    longest = max(len(ids) for ids in examples["input_ids"])
    plan = plan_steps(job.spec, len(examples), longest)
    job.report.steps, job.report.steps_per_epoch = plan.max_steps, plan.steps_per_epoch
    job.report.micro_batch_size = plan.micro_batch_size
    job.report.warnings += plan.warnings
    return plan


def restore_checkpoint(job: Job) -> Path | None:
    """The folder of the checkpoint to go on from, if an earlier attempt left a good one."""
    found = restore_newest(job.store, job.spec.output_prefix, job.work_dir / "checkpoints")
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


def build_trainer(
    job: Job, inputs: Inputs, tokenizer: Any, examples: Examples, plan: StepPlan, restored: Path | None
) -> tuple[Any, EvaluateHeldOut | None]:
    """The trainer, and the evaluation if rows are held out."""
    model = load_model(job.spec, inputs.base)
    warm = job.spec.warm_start
    if warm and inputs.warm_start:
        model = open_adapter(model, inputs.warm_start, warm)
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)  # Masked wherever it stands.
    state = JobState.read(restored)
    held_out = None
    if examples.held_out is not None:
        held_out = EvaluateHeldOut(
            job.spec, plan, examples.held_out, state, job.progress, job.stop, job.best_folder
        )
    checkpoints = KeepCheckpoints(job.spec, state, job.store, job.progress, job.stop, job.best_folder)
    trainer = SFTTrainer(
        model=model,
        args=training_arguments(job, plan, wants_gradient_checkpointing(model)),
        train_dataset=examples.train,
        processing_class=tokenizer,
        peft_config=None if warm else new_adapter(job.spec, model),
        callbacks=[
            callback for callback in (ReportSteps(job.progress, state), held_out, checkpoints) if callback
        ],
    )
    trainer.remove_callback(PrinterCallback)
    if held_out:
        held_out.trainer = trainer
    return trainer, held_out


def training_arguments(job: Job, plan: StepPlan, gradient_checkpointing: bool) -> Any:
    on_gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(job.work_dir / "checkpoints"),
        max_steps=plan.max_steps,
        per_device_train_batch_size=plan.micro_batch_size,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=job.spec.learning_rate,
        lr_scheduler_type=job.spec.lr_scheduler_type,
        warmup_steps=job.spec.warmup_steps,
        weight_decay=job.spec.weight_decay,
        max_grad_norm=1.0,
        seed=job.spec.seed,
        data_seed=job.spec.seed,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=gradient_checkpointing,
        # The examples are tokenized and cut already, and are not to be touched again.
        max_length=None,
        packing=False,
        # Packed rows lie end to end, and each sees only itself.
        padding_free=bool(job.spec.batch_tokens),
        dataset_kwargs={"skip_prepare_dataset": True},
        # Checkpoints and evaluations are the callbacks'.
        save_strategy="no",
        save_total_limit=2,
        eval_strategy="no",
        logging_steps=plan.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=start_tracking(job.spec, job.work_dir),
        run_name=job.spec.job_name.rsplit("/", 1)[-1],
        dataloader_pin_memory=on_gpu,
        disable_tqdm=True,
    )


def evaluate_result(job: Job, trainer: Any, held_out: EvaluateHeldOut | None) -> Evaluation | None:
    """Evaluate the adapter that is kept: the last one or, with early stopping, the best."""
    if held_out is None:
        return None
    evaluation = held_out.evaluate(trainer.state.global_step)
    job.stop.carry_out()
    state = held_out.state
    if job.spec.early_stop and state.best_step != trainer.state.global_step and state.best_loss is not None:
        job.report.warnings.append(
            f"the adapter of step {state.best_step} of {trainer.state.global_step} was kept: it has the best "
            "evaluation loss"
        )
        load_weights(trainer.model, job.best_folder / "adapter_model.safetensors")
        evaluation = Evaluation(state.best_loss, evaluation.tokens if evaluation else 0)
    return evaluation


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
        metrics |= {"eval_loss": evaluation.loss, "perplexity": evaluation.perplexity}
    if url := tracking_url(job.spec):
        metrics["wandb_url"] = url
    return metrics
