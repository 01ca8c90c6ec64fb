"""What a fine-tuning job does next: the rows of the truth table, and its texts."""

import pytest

from workers.reconcile.fine_tuning_plan import (
    MAX_CRASHES,
    JobView,
    OutputModel,
    Step,
    Trainer,
    crash_message,
    plan_job,
)

NO_MODEL = OutputModel.NONE

TRUTH_TABLE = [
    # state, crashes, trainer, outcome, model → step
    ("CREATING", 0, Trainer.ABSENT, None, NO_MODEL, Step.ADMIT),
    ("PENDING", 0, Trainer.ABSENT, None, NO_MODEL, Step.ADMIT),
    ("RUNNING", 0, Trainer.ABSENT, None, NO_MODEL, Step.START),
    ("RUNNING", 0, Trainer.ALIVE, None, NO_MODEL, Step.FOLLOW),
    ("RUNNING", 0, Trainer.INTERRUPTED, None, NO_MODEL, Step.RESTART_INTERRUPTED),
    ("RUNNING", MAX_CRASHES, Trainer.INTERRUPTED, None, NO_MODEL, Step.RESTART_INTERRUPTED),
    ("RUNNING", 0, Trainer.ENDED, None, NO_MODEL, Step.RESTART_CRASHED),
    ("RUNNING", MAX_CRASHES, Trainer.ENDED, None, NO_MODEL, Step.FAIL_CRASHED),
    ("RUNNING", 0, Trainer.ENDED, "failed", NO_MODEL, Step.FAIL_WITH_RESULT),
    ("RUNNING", 0, Trainer.ALIVE, "failed", NO_MODEL, Step.FAIL_WITH_RESULT),
    ("RUNNING", 0, Trainer.ENDED, "succeeded", NO_MODEL, Step.REGISTER_MODEL),
    ("RUNNING", 0, Trainer.INTERRUPTED, "succeeded", NO_MODEL, Step.REGISTER_MODEL),
    ("RUNNING", 0, Trainer.ENDED, "succeeded", OutputModel.CHECKING, Step.AWAIT_MODEL),
    # A resumed job may find its model there already: it writes results again, and goes on from there.
    ("RUNNING", 0, Trainer.ENDED, "succeeded", OutputModel.READY, Step.AWAIT_MODEL),
    ("RE_QUEUEING", 0, Trainer.ABSENT, None, NO_MODEL, Step.START),
    ("RE_QUEUEING", 0, Trainer.ALIVE, None, NO_MODEL, Step.FOLLOW),
    ("RE_QUEUEING", 0, Trainer.ENDED, None, NO_MODEL, Step.RESTART_CRASHED),
    ("RE_QUEUEING", 0, Trainer.ENDED, "succeeded", NO_MODEL, Step.REGISTER_MODEL),
    ("WRITING_RESULTS", 0, Trainer.ENDED, "succeeded", NO_MODEL, Step.REGISTER_MODEL),
    ("WRITING_RESULTS", 0, Trainer.ENDED, "succeeded", OutputModel.CHECKING, Step.AWAIT_MODEL),
    ("WRITING_RESULTS", 0, Trainer.ENDED, "succeeded", OutputModel.READY, Step.COMPLETE),
    ("WRITING_RESULTS", 0, Trainer.ABSENT, None, OutputModel.READY, Step.COMPLETE),
    ("WRITING_RESULTS", 0, Trainer.ENDED, "succeeded", OutputModel.INVALID, Step.FAIL_MODEL),
    ("WRITING_RESULTS", 0, Trainer.ENDED, "succeeded", OutputModel.GONE, Step.FAIL_MODEL_GONE),
    ("CANCELLING", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    ("CANCELLING", 0, Trainer.ABSENT, None, NO_MODEL, Step.CANCEL),
    ("CANCELLING", 0, Trainer.INTERRUPTED, None, NO_MODEL, Step.CANCEL),
    ("CANCELLING", 0, Trainer.ENDED, None, NO_MODEL, Step.CANCEL),
    ("CANCELLED", 0, Trainer.INTERRUPTED, None, NO_MODEL, Step.NOTHING),
    ("CANCELLED", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    # Resumed: what is left of the last attempt goes first.
    ("PENDING", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    ("PENDING", 0, Trainer.ENDED, "failed", NO_MODEL, Step.CLEAR_RESULT),
    ("PENDING", 0, Trainer.INTERRUPTED, None, NO_MODEL, Step.ADMIT),
    ("PENDING", 0, Trainer.ENDED, "succeeded", NO_MODEL, Step.ADMIT),
    ("EARLY_STOPPED", 0, Trainer.ENDED, "succeeded", OutputModel.READY, Step.NOTHING),
    ("COMPLETED", 0, Trainer.ENDED, "succeeded", OutputModel.READY, Step.NOTHING),
    ("FAILED", 0, Trainer.ENDED, None, NO_MODEL, Step.NOTHING),
    ("FAILED", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    ("COMPLETED", 0, Trainer.ALIVE, "succeeded", OutputModel.READY, Step.NOTHING),
    ("DELETING", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    ("DELETING", 0, Trainer.ENDED, None, NO_MODEL, Step.REMOVE),
    ("DELETING", 0, Trainer.ABSENT, None, NO_MODEL, Step.REMOVE),
]


@pytest.mark.parametrize(("state", "crashes", "trainer", "outcome", "model", "step"), TRUTH_TABLE)
def test_a_job_takes_the_step_of_its_row(state, crashes, trainer, outcome, model, step):
    assert plan_job(JobView(state, crashes, trainer, outcome, model)) is step


def test_a_killed_trainer_is_explained_with_its_last_words():
    message = crash_message(None, 9, ["step 10", "step 11"])
    assert "signal 9" in message
    assert "ran out of memory" in message
    assert message.endswith("step 10\nstep 11")


def test_a_trainer_that_exits_without_a_result_is_told_by_its_exit_code():
    assert crash_message(3, None, []) == "the trainer ended with exit code 3 and without a result"
