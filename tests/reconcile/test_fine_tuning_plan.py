"""What a fine-tuning job does next: the rows of the truth table, and its texts."""

import pytest

from workers.reconcile.fine_tuning.crash import Crash, crash_message
from workers.reconcile.fine_tuning.plan import (
    MAX_CRASHES,
    JobView,
    OutputModel,
    Step,
    Trainer,
    plan_job,
)

NO_MODEL = OutputModel.NONE

TRUTH_TABLE = [
    # state, crashes, trainer, outcome, model → step
    ("CREATING", 0, Trainer.ABSENT, None, NO_MODEL, Step.QUEUE),
    ("PENDING", 0, Trainer.ABSENT, None, NO_MODEL, Step.WAIT),
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
    ("PAUSING", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    ("PAUSING", 0, Trainer.ABSENT, None, NO_MODEL, Step.PAUSE),
    ("PAUSING", 0, Trainer.INTERRUPTED, None, NO_MODEL, Step.PAUSE),
    ("PAUSING", MAX_CRASHES, Trainer.ENDED, None, NO_MODEL, Step.PAUSE),
    # Nothing is lost by pausing a job that has just succeeded; a failure is told at once.
    ("PAUSING", 0, Trainer.ENDED, "succeeded", NO_MODEL, Step.PAUSE),
    ("PAUSING", 0, Trainer.ENDED, "failed", NO_MODEL, Step.FAIL_WITH_RESULT),
    # Resumed: what is left of the last attempt goes first.
    ("RESUMING", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    ("RESUMING", 0, Trainer.ENDED, "failed", NO_MODEL, Step.CLEAR_RESULT),
    ("RESUMING", 0, Trainer.INTERRUPTED, None, NO_MODEL, Step.QUEUE),
    ("RESUMING", 0, Trainer.ENDED, "succeeded", NO_MODEL, Step.QUEUE),
    ("RESUMING", 0, Trainer.ABSENT, None, NO_MODEL, Step.QUEUE),
    ("PENDING", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    ("PENDING", 0, Trainer.INTERRUPTED, None, NO_MODEL, Step.WAIT),
    # At rest a job keeps nothing on a node.
    ("PAUSED", 0, Trainer.INTERRUPTED, None, NO_MODEL, Step.TIDY),
    ("PAUSED", 0, Trainer.ABSENT, None, NO_MODEL, Step.NOTHING),
    ("CANCELLED", 0, Trainer.INTERRUPTED, None, NO_MODEL, Step.TIDY),
    ("CANCELLED", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    ("CANCELLED", 0, Trainer.ABSENT, None, NO_MODEL, Step.NOTHING),
    ("EARLY_STOPPED", 0, Trainer.ENDED, "succeeded", OutputModel.READY, Step.TIDY),
    ("COMPLETED", 0, Trainer.ENDED, "succeeded", OutputModel.READY, Step.TIDY),
    ("COMPLETED", 0, Trainer.ABSENT, "succeeded", OutputModel.READY, Step.NOTHING),
    ("COMPLETED", 0, Trainer.ALIVE, "succeeded", OutputModel.READY, Step.STOP),
    ("FAILED", 0, Trainer.ENDED, None, NO_MODEL, Step.TIDY),
    ("FAILED", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    ("FAILED", 0, Trainer.ABSENT, None, NO_MODEL, Step.NOTHING),
    ("DELETING", 0, Trainer.ALIVE, None, NO_MODEL, Step.STOP),
    ("DELETING", 0, Trainer.ENDED, None, NO_MODEL, Step.REMOVE),
    ("DELETING", 0, Trainer.ABSENT, None, NO_MODEL, Step.REMOVE),
]


@pytest.mark.parametrize(("state", "crashes", "trainer", "outcome", "model", "step"), TRUTH_TABLE)
def test_a_job_takes_the_step_of_its_row(state, crashes, trainer, outcome, model, step):
    assert plan_job(JobView(state, crashes, trainer, outcome, model)) is step


GIB = 2**30
PLENTY = {"total": 24 * GIB, "available": 12 * GIB, "oom_kills": 0}
SCARCE = {"total": 24 * GIB, "available": GIB // 2, "oom_kills": 0}
KERNEL = {"total": 24 * GIB, "available": 9 * GIB, "oom_kills": 1}

CRASHES = [
    # how it ended → the reason, and what the message says
    (Crash(signal=9, memory=KERNEL), "OUT_OF_MEMORY", "ran out of memory (9.0 of the node's 24.0 GiB"),
    (Crash(signal=9, memory=SCARCE), "OUT_OF_MEMORY", "microBatchSize needs less"),
    (Crash(exit_code=137, memory=KERNEL), "OUT_OF_MEMORY", "ran out of memory"),
    (Crash(exit_code=-9, memory=SCARCE), "OUT_OF_MEMORY", "ran out of memory"),
    (Crash(signal=9, memory=PLENTY), "TRAINER_CRASHED", "not for want of memory: 12.0 of the"),
    (Crash(signal=9), "TRAINER_CRASHED", "as happens when memory runs out"),
    (Crash(signal=11, memory=SCARCE), "TRAINER_CRASHED", "the trainer was ended by signal 11"),
    (Crash(exit_code=3), "TRAINER_CRASHED", "the trainer ended with exit code 3 and without a result"),
]


@pytest.mark.parametrize(("crash", "reason", "said"), CRASHES)
def test_a_crash_is_explained(crash, reason, said):
    assert said in crash.cause()
    assert crash.code[1] == reason
    assert (crash.code[0] == "RESOURCE_EXHAUSTED") == (reason == "OUT_OF_MEMORY")


def test_a_crash_is_told_with_the_trainers_last_words():
    assert crash_message(Crash(exit_code=3), ["step 10", "step 11"]).endswith("step 10\nstep 11")
    assert crash_message(Crash(exit_code=3), []) == Crash(exit_code=3).cause()
