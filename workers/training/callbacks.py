"""What happens between two steps: reporting, evaluating, checkpointing, stopping."""

from __future__ import annotations

import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from controlplane.storage import ObjectStore, StorageUnavailable
from workers.training.checkpoints import BEST_ADAPTER, METRICS_FILE, JobState, upload_checkpoint
from workers.training.config import JobSpec
from workers.training.errors import TrainingFailure
from workers.training.evaluate import Evaluation, evaluate
from workers.training.plan import StepPlan
from workers.training.progress import ProgressReport
from workers.training.stop import StopRequest

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
CHECKPOINT_SHARE = 20
"""Training takes at least so many times the time that its checkpoints take."""
PATIENCE = 2
"""Evaluations in a row without a better loss, after which an early-stopping job ends."""
LOG_SECONDS = 10.0
LOGGED = ("loss", "learning_rate", "grad_norm", "mean_token_accuracy")


class ReportSteps(TrainerCallback):
    """Progress and metrics of every logged step; raises TrainingFailure when the loss is no number."""

    def __init__(self, progress: ProgressReport, state: JobState) -> None:
        self._progress = progress
        self._state = state
        self._tokens_before = state.tokens_seen
        self._started = self._logged = 0.0
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started = time.monotonic()
        self._first_step = state.global_step
        self._progress.update(phase="TRAINING", step=state.global_step, max_steps=state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        elapsed = time.monotonic() - self._started
        seconds_a_step = elapsed / max(1, state.global_step - self._first_step)
        left = (state.max_steps - state.global_step) * seconds_a_step
        self._progress.update(
            step=state.global_step, epoch=round(state.epoch or 0.0, 4), eta_seconds=round(left, 1)
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        step = state.global_step
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            raise TrainingFailure(
                "INVALID_ARGUMENT",
                "LOSS_DIVERGED",
                f"the loss diverged at step {step} (loss {logs['loss']}, gradient norm "
                f"{logs.get('grad_norm')}) with learning rate {logs.get('learning_rate', 0.0):g}; "
                "a smaller one may help",
            )
        values = {name: float(logs[name]) for name in LOGGED if name in logs}
        new_tokens = int(logs.get("num_tokens", 0))
        self._state.tokens_seen = self._tokens_before + new_tokens
        speed = new_tokens / max(1e-3, time.monotonic() - self._started)
        line = {"step": step, "epoch": round(state.epoch or 0.0, 4), **values}
        # First: whoever sees a loss in the progress finds the metrics too.
        self._progress.add_metrics({**line, "tokens_seen": self._state.tokens_seen})
        self._progress.update(
            loss=values["loss"],
            learning_rate=values.get("learning_rate"),
            grad_norm=values.get("grad_norm"),
            tokens_seen=self._state.tokens_seen,
            tokens_per_second=round(speed, 1),
        )
        self._log(step, state.max_steps, values["loss"])

    def _log(self, step: int, max_steps: int, loss: float) -> None:
        if time.monotonic() - self._logged >= LOG_SECONDS or step == max_steps:
            self._logged = time.monotonic()
            log.info("step %d of %d: loss %.4f", step, max_steps, loss)


class EvaluateHeldOut(TrainerCallback):
    """Evaluates now and then; with `early_stop`, keeps the best adapter and ends a job that
    gets no better."""

    trainer: Any
    """Set once it exists: it is made with its callbacks."""

    def __init__(
        self,
        spec: JobSpec,
        plan: StepPlan,
        examples: Any,
        state: JobState,
        progress: ProgressReport,
        stop: StopRequest,
        best_folder: Path,
    ) -> None:
        self._early_stop = spec.early_stop
        self._plan = plan
        self._examples = examples
        self.state = state
        self._progress = progress
        self._stop = stop
        self._best_folder = best_folder
        self.last: Evaluation | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # An earlier attempt was stopped while it evaluated.
        if self._is_due(state.global_step) and state.global_step < state.max_steps:
            self.evaluate(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step < state.max_steps and self._is_due(state.global_step):
            self.evaluate(state.global_step)
            self._progress.update(phase="TRAINING")
            if self._early_stop and self.state.worse_in_a_row >= PATIENCE:
                log.info("no better loss in %d evaluations: stopping early", PATIENCE)
                control.should_training_stop = True

    def evaluate(self, step: int) -> Evaluation | None:
        """Evaluate the model as it is after `step`; None when the job is asked to stop meanwhile."""
        if self.last is not None and self.state.evaluated_step == step:
            return self.last
        self._progress.update(phase="EVALUATING")
        found = evaluate(
            self.trainer, self._examples, self._plan.micro_batch_size, lambda: self._stop.requested
        )
        if found is not None:
            self.last = found
            self.state.evaluated_step = step
            self._progress.add_metrics(
                {"step": step, "eval_loss": found.loss, "eval_perplexity": found.perplexity}
            )
            log.info("evaluation after step %d: loss %.4f", step, found.loss)
            self._compare(step, found.loss)
        return found

    def _compare(self, step: int, loss: float) -> None:
        if self.state.best_loss is not None and loss >= self.state.best_loss:
            self.state.worse_in_a_row += 1
            return
        self.state.best_loss, self.state.best_step, self.state.worse_in_a_row = loss, step, 0
        if self._early_stop:
            self.trainer.model.save_pretrained(self._best_folder, save_embedding_layers=False)

    def _is_due(self, step: int) -> bool:
        return step > self.state.evaluated_step and step % self._plan.evaluation_steps == 0


class KeepCheckpoints(TrainerCallback):
    """Checkpoints by time (or every so many steps), uploaded; one more when the job is asked to stop."""

    def __init__(
        self,
        spec: JobSpec,
        state: JobState,
        store: ObjectStore,
        progress: ProgressReport,
        stop: StopRequest,
        best_folder: Path,
    ) -> None:
        self._spec = spec
        self._state = state
        self._store = store
        self._progress = progress
        self._stop = stop
        self._best = best_folder / "adapter_model.safetensors"
        self._saved = 0.0
        self._pause = CHECKPOINT_SECONDS

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # None at the end: the trainer cannot resume from there without a step too many.
        if state.global_step >= state.max_steps or control.should_training_stop:
            return
        control.should_save = self._stop.requested or self._is_due(state.global_step)
        control.should_training_stop = self._stop.requested

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        started = time.monotonic()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._state.write(folder)
        self._progress.save_metrics(folder / METRICS_FILE)
        if self._best.exists():
            shutil.copyfile(self._best, folder / BEST_ADAPTER)
        try:
            upload_checkpoint(self._store, self._spec.output_prefix, folder, state.global_step)
            log.info("checkpoint of step %d uploaded", state.global_step)
        except StorageUnavailable as error:
            log.warning("the checkpoint of step %d could not be uploaded: %s", state.global_step, error)
        self._saved = time.monotonic()
        self._pause = max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * (self._saved - started))

    def _is_due(self, step: int) -> bool:
        if self._spec.checkpoint_interval_steps:
            return step % self._spec.checkpoint_interval_steps == 0
        return time.monotonic() - self._saved >= self._pause
