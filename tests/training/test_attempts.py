"""What every attempt of a job sees and decides alike, however often it is paused.

The trainer's loop is a fake here, and so are its losses; `test_resume` has the real ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.conftest import END, PLAIN_TEMPLATE
from workers.training.config import JobSpec
from workers.training.errors import Interrupted
from workers.training.examples.encoding import Encoder
from workers.training.examples.reading import reading_of
from workers.training.examples.rows import ConversationReader, RawRow
from workers.training.objectives.objective import Objective
from workers.training.outcome.evaluate import Evaluation
from workers.training.outcome.exact_match import ExactMatch
from workers.training.running import together
from workers.training.running.callbacks import EndAtOnce, EvaluateHeldOut, NothingLeft
from workers.training.running.checkpoints import JobState
from workers.training.running.pace import Pace
from workers.training.running.ranks import Rank
from workers.training.running.stop import StopRequest
from workers.training.running.together import FollowFirst

STEPS, EVERY = 20, 2
LOSSES = {2: 1.0, 4: 1.1, 6: 1.2, 8: 0.5}
"""The second evaluation in a row without a better loss is that after step 6; later ones would be better."""


class Attempts:
    """Attempts of a job that stops early, each of which goes on with the state that the last one left.

    `pauses`: the steps of evaluations during which it is asked to stop, in their order.
    """

    def __init__(self, *pauses: int) -> None:
        self.pauses = list(pauses)
        self.stop = StopRequest()
        self.metrics: list[dict[str, Any]] = []
        self.state = JobState()
        self.step = 0

    def run(self) -> EvaluateHeldOut:
        while True:
            evaluation = self._evaluation()
            try:
                self._attempt(evaluation)
            except NothingLeft:
                return evaluation
            except Interrupted:
                pass
            if not self.stop.requested:
                return evaluation
            self.stop.requested = False
            self.state = JobState.model_validate_json(self.state.model_dump_json())

    def _attempt(self, evaluation: EvaluateHeldOut) -> None:
        """As the trainer goes about it: what is decided at the beginning is heard of after a step only."""
        control = SimpleNamespace(should_training_stop=False)
        for callback in (evaluation, EndAtOnce()):
            callback.on_train_begin(None, self._now(), control)
        while self.step < STEPS and not self.stop.requested:
            self.step += 1
            evaluation.on_step_end(None, self._now(), control)
            if control.should_training_stop:
                return

    def _now(self) -> Any:
        return SimpleNamespace(global_step=self.step, max_steps=STEPS)

    def _evaluation(self) -> EvaluateHeldOut:
        progress = SimpleNamespace(update=lambda **_: None, add_metrics=self.metrics.append)
        spec = SimpleNamespace(early_stop=True)
        job: Any = SimpleNamespace(spec=spec, progress=progress, pace=Pace(), best_folder=Path("best"))
        plan: Any = SimpleNamespace(evaluation_steps=EVERY, micro_batch_size=1)
        examples: Any = SimpleNamespace(held_out=[1])
        objective = Objective(_unused, _unused, self._evaluate, lambda *_: ExactMatch(rows=4, matched=3))
        found = EvaluateHeldOut(job, plan, examples, objective, self.state, self.stop)
        found.trainer = SimpleNamespace(args=SimpleNamespace(should_save=False))
        return found

    def _evaluate(self, *_: Any) -> Evaluation | None:
        if self.pauses and self.pauses[0] == self.step:
            self.stop.requested = bool(self.pauses.pop(0))
        return None if self.stop.requested else Evaluation(LOSSES.get(self.step, 1.5), 1)


def _unused(*_: Any) -> Any:
    raise AssertionError


@pytest.mark.parametrize("pauses", [(), (2,), (4,), (6,), (6, 6), (2, 4, 4, 6, 6, 6)])
def test_a_job_stops_early_after_the_same_step_wherever_it_was_paused(pauses: tuple[int, ...]) -> None:
    attempts = Attempts(*pauses)
    attempts.run()
    assert not attempts.pauses
    assert (attempts.step, attempts.state.best_step, attempts.state.best_loss) == (6, 2, 1.0)
    losses = [(line["step"], line["eval_loss"]) for line in attempts.metrics if "eval_loss" in line]
    assert losses[1:] == [(2, 1.0), (4, 1.1), (6, 1.2)]


def test_answers_of_an_earlier_adapter_stand_behind_the_steps_that_came_after_it() -> None:
    attempts = Attempts()
    evaluation = attempts.run()
    evaluation.asked(attempts.step, Evaluation(1.0, 1), attempts.state.best_step)
    steps = [line["step"] for line in attempts.metrics]
    assert steps == sorted(steps)
    assert attempts.metrics[-1] == {"step": 6, "kept_step": 2, "eval_exact_match": 0.75}


def test_what_the_first_process_decides_before_the_first_step_ends_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"should_save": False, "should_training_stop": True, "should_epoch_stop": False}
    monkeypatch.setattr(together, "from_first", lambda rank, work: told)
    control = SimpleNamespace(should_training_stop=False)
    FollowFirst(Rank(1, 2)).on_train_begin(None, None, control)
    with pytest.raises(NothingLeft):
        EndAtOnce().on_train_begin(None, None, control)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_a_template_that_asks_for_the_day_gets_the_jobs_wherever_and_whenever_it_is_rendered(
    make_spec: Callable[..., JobSpec], encoder: Encoder, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    talk = [{"role": "user", "content": "sky"}, {"role": "assistant", "content": "blue"}]
    template = "{{- strftime_now('%d %b %Y, %H:%M') + ' ' }}" + PLAIN_TEMPLATE
    spec = make_spec([{"messages": talk}], day="2024-02-29", jinja_template=template)
    tokenizer = SimpleNamespace(chat_template=PLAIN_TEMPLATE, special_tokens_map={"eos_token": END})
    with reading_of(spec, tokenizer).open(encoder) as reader:
        assert isinstance(reader, ConversationReader)
        row = RawRow("line 1", {"messages": talk})
        texts = [reader.read(row)[-1].text, reader.read_prompt(row)]
    monkeypatch.undo()
    time.tzset()
    assert [text.partition("<")[0] for text in texts] == ["29 Feb 2024, 00:00 "] * 2
