"""What happens between two steps: reporting, evaluating, checkpointing, stopping."""

from __future__ import annotations

import logging
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from controlplane.storage import StorageUnavailable
from workers.training.errors import TrainingFailure
from workers.training.job import Job
from workers.training.model.adapter import dress_adapter
from workers.training.model.memory import peak_memory
from workers.training.objectives.objective import Examples, Objective
from workers.training.outcome.card import write_card
from workers.training.outcome.evaluate import Evaluation
from workers.training.outcome.result import outlast_outages
from workers.training.plan import StepPlan
from workers.training.running.checkpoints import BEST_ADAPTER, METRICS_FILE, JobState, upload_checkpoint
from workers.training.running.pace import ASKING, EVALUATING, evaluations_left
from workers.training.running.stop import StopRequest
from workers.training.running.together import StopOfAll

log = logging.getLogger(__name__)

LAST_CHECKPOINT_TRIES = 5
LAST_CHECKPOINT_PAUSE_SECONDS = 5.0
"""The last one before a pause is worth waiting for the object store, within the time that a stop may take."""
CHECKPOINT_SHARE = 20
"""Training takes at least so many times the time that its checkpoints take."""
PATIENCE = 2
"""Evaluations in a row without a better loss, after which an early-stopping job ends."""
LOG_SECONDS = 10.0
REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")
"""Of pairs of answers."""
LOGGED = ("loss", "learning_rate", "grad_norm", "mean_token_accuracy", *REWARDS)
SHOWN = ("loss", "learning_rate", "grad_norm")
SHOWN_OF_PAIRS = {"reward_accuracy": "rewards/accuracies", "reward_margin": "rewards/margins"}


class NothingLeft(Exception):
    """The job goes on after what was its last step."""


class ReportSteps(TrainerCallback):
    """Progress and metrics of every logged step; raises TrainingFailure when the loss is no number."""

    def __init__(self, job: Job, plan: StepPlan, state: JobState) -> None:
        self._progress = job.progress
        self._pace = job.pace
        self._plan = plan
        self._state = state
        self._tokens_before = state.tokens_seen
        self._logged = 0.0
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._first_step = state.global_step
        self._progress.update(phase="TRAINING", step=state.global_step, max_steps=state.max_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Not earlier: what is done before the first step would count as slow steps.
        self._pace.go_on()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, last = state.global_step, state.max_steps
        evaluations = evaluations_left(step, last, self._plan.evaluation_steps)
        left = self._pace.seconds_left(step - self._first_step, last - step, evaluations)
        self._progress.update(step=step, epoch=round(state.epoch or 0.0, 4), eta_seconds=round(left, 1))

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
        pace = {
            "tokens_seen": self._state.tokens_seen,
            "tokens_per_second": round(new_tokens / max(1e-3, self._pace.seconds), 1),
            **peak_memory(),
        }
        # First: whoever sees a loss in the progress finds the metrics too.
        self._progress.add_metrics({"step": step, "epoch": round(state.epoch or 0.0, 4), **values, **pace})
        shown = {name: values.get(name) for name in SHOWN}
        of_pairs = {name: values[logged] for name, logged in SHOWN_OF_PAIRS.items() if logged in values}
        self._progress.update(**pace, **shown, **of_pairs)
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
        job: Job,
        plan: StepPlan,
        examples: Examples,
        objective: Objective,
        state: JobState,
        stop: StopRequest | StopOfAll,
    ) -> None:
        self._early_stop = job.spec.early_stop
        self._plan = plan
        self._examples = examples
        self._objective = objective
        self.state = state
        self._progress = job.progress
        self._pace = job.pace
        self.stop = stop
        self._best_folder = job.best_folder
        self.last: Evaluation | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:
            self._evaluate_before()
        # An earlier attempt was stopped while it evaluated.
        elif self._is_due(state.global_step) and state.global_step < state.max_steps:
            self.evaluate(state.global_step)
            # Stopped once more: a step would come between the checkpoint and its evaluation.
            self.stop.carry_out()
        self._stop_if_over(control)
        self._progress.update(phase="TRAINING")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step < state.max_steps and self._is_due(state.global_step):
            self.evaluate(state.global_step)
            self._progress.update(phase="TRAINING")
            self._stop_if_over(control)

    def _stop_if_over(self, control: Any) -> None:
        if self._early_stop and self.state.worse_in_a_row >= PATIENCE:
            log.info("no better loss in %d evaluations: stopping early", PATIENCE)
            control.should_training_stop = True

    def evaluate(self, step: int) -> Evaluation | None:
        """Evaluate the model as it is after `step`; None when the job is asked to stop meanwhile."""
        if self.last is not None and self.state.evaluated_step == step:
            return self.last
        found = self._measure(step)
        if found is not None:
            self.last = found
            self.state.evaluated_step = step
            self._compare(step, found.loss)
        return found

    def asked(self, step: int, found: Evaluation, kept_step: int) -> Evaluation:
        """The evaluation with the answers that the model gives now, where answers can be compared.

        The model may be that of an earlier step, `kept_step`. Metrics stand in the order of steps even then.
        """
        if self._objective.ask is None:
            return found
        self._progress.update(phase="EVALUATING")
        with self._pace.aside(ASKING):
            exact = self._objective.ask(self.trainer, self._examples, lambda: self.stop.requested)
        if exact is not None:
            kept = {"kept_step": kept_step} if kept_step != step else {}
            self._progress.add_metrics({"step": step, **kept, "eval_exact_match": exact.share})
            log.info("after step %d %d of %d answers are exact", kept_step, exact.matched, exact.rows)
        return replace(found, exact=exact)

    def _evaluate_before(self) -> None:
        found = self._measure(0)
        before = self.asked(0, found, 0) if found is not None else None
        # No step has been made: who goes on begins with this evaluation.
        self.stop.carry_out()
        if before is not None:
            self.state.before = before.as_message()

    def look(self) -> Evaluation | None:
        """Evaluate the model as it is now; None when the job is asked to stop meanwhile."""
        self._progress.update(phase="EVALUATING")
        held_out, at_once = self._examples.held_out, self._plan.micro_batch_size
        with self._pace.aside(EVALUATING):
            return self._objective.evaluate(self.trainer, held_out, at_once, lambda: self.stop.requested)

    def _measure(self, step: int) -> Evaluation | None:
        found = self.look()
        if found is not None and not math.isfinite(found.loss):
            raise TrainingFailure(
                "INVALID_ARGUMENT",
                "LOSS_DIVERGED",
                f"the evaluation loss after step {step} is {found.loss}; a smaller learning rate may help",
            )
        if found is not None:
            scores = {f"eval_{name}": score for name, score in found.scores().items()}
            self._progress.add_metrics({"step": step, **scores})
            log.info("evaluation after step %d: loss %.4f", step, found.loss)
        return found

    def _compare(self, step: int, loss: float) -> None:
        if self.state.best_loss is not None and loss >= self.state.best_loss:
            self.state.worse_in_a_row += 1
            return
        self.state.best_loss, self.state.best_step, self.state.worse_in_a_row = loss, step, 0
        if self._early_stop and self.trainer.args.should_save:
            self.trainer.model.save_pretrained(self._best_folder, save_embedding_layers=False)

    def _is_due(self, step: int) -> bool:
        return step > self.state.evaluated_step and step % self._plan.evaluation_steps == 0


class EndAtOnce(TrainerCallback):
    """Raises NothingLeft where it is decided before the first step: the trainer would make one all the same.

    The last of the callbacks.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_training_stop:
            raise NothingLeft


class KeepCheckpoints(TrainerCallback):
    """Checkpoints by time (or every so many steps), uploaded; one more when the job is asked to stop."""

    def __init__(self, job: Job, state: JobState) -> None:
        self._job = job
        self._spec = job.spec
        self._state = state
        self._store = job.store
        self._progress = job.progress
        self._stop = job.stop
        self._best = job.best_folder / "adapter_model.safetensors"
        self._saved = 0.0
        self._pause = self._spec.checkpoint_seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # None at the end: the trainer cannot resume from there without a step too many.
        if state.global_step >= state.max_steps or control.should_training_stop:
            return
        stopping = self._stop.requested  # Once: the request may come between two looks.
        control.should_save = stopping or self._is_due(state.global_step)
        control.should_training_stop = stopping
        if control.should_save:
            self._job.pace.rest()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        started = time.monotonic()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        dress_adapter(folder, self._spec)
        write_card(folder, self._job, state.global_step)
        self._state.write(folder)
        self._progress.save_metrics(folder / METRICS_FILE)
        if self._best.exists():
            shutil.copyfile(self._best, folder / BEST_ADAPTER)
        tries = LAST_CHECKPOINT_TRIES if self._stop.requested else 1
        try:
            outlast_outages(
                lambda: upload_checkpoint(self._store, self._spec.output_prefix, folder, state.global_step),
                tries,
                LAST_CHECKPOINT_PAUSE_SECONDS,
            )
            log.info("checkpoint of step %d uploaded", state.global_step)
        except StorageUnavailable as error:
            log.warning("the checkpoint of step %d could not be uploaded: %s", state.global_step, error)
        self._saved = time.monotonic()
        self._pause = max(self._spec.checkpoint_seconds, CHECKPOINT_SHARE * (self._saved - started))

    def _is_due(self, step: int) -> bool:
        if self._spec.checkpoint_interval_steps:
            return step % self._spec.checkpoint_interval_steps == 0
        return time.monotonic() - self._saved >= self._pause
