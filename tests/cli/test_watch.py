"""`get … --watch` without a terminal: plain lines, the resource in the end, and the exit code."""

import pytest

HOME = "/v1/accounts/acme"
NOUNS = {
    "model": ("models", "UPLOADING", "READY"),
    "dataset": ("datasets", "UPLOADING", "READY"),
    "deployment": ("deployments", "CREATING", "READY"),
    "fine-tuning-job": ("fineTuningJobs", "RUNNING", "COMPLETED"),
    "supervised-fine-tuning-job": (
        "supervisedFineTuningJobs",
        "JOB_STATE_RUNNING",
        "JOB_STATE_COMPLETED",
    ),
}


def seen(collection, state, code="OK", message=""):
    return {
        "name": f"accounts/acme/{collection}/x",
        "state": state,
        "status": {"code": code, "message": message},
        "replicaCount": 1,
        "desiredReplicaCount": 1,
    }


@pytest.mark.parametrize("noun", NOUNS)
def test_what_is_watched_is_printed_when_it_has_arrived(firectl, api, noun):
    collection, first, last = NOUNS[noun]
    api.on("GET", f"{HOME}/{collection}/x", *(seen(collection, state) for state in (first, first, last)))
    ran = firectl("get", noun, "x", "--watch")
    assert ran.code == 0
    assert f"State: {last}\n" in ran.out
    assert ran.err.splitlines()[0].startswith(first.removeprefix("JOB_STATE_"))
    assert not api.sent("GET", f"{HOME}/{collection}/x:metrics")


def test_the_document_comes_once_and_at_the_end(firectl, api):
    api.on("GET", f"{HOME}/models/x", seen("models", "UPLOADING"), seen("models", "READY"))
    assert firectl("get", "model", "x", "--watch", "-o", "json").json["state"] == "READY"


def test_one_that_fails_is_printed_too_and_the_exit_code_tells(firectl, api):
    failed = seen("fineTuningJobs", "FAILED", "INTERNAL", "the loss became NaN")
    api.on("GET", f"{HOME}/fineTuningJobs/x", seen("fineTuningJobs", "RUNNING"), failed)
    ran = firectl("get", "fine-tuning-job", "x", "--watch")
    assert ran.code == 3
    assert "State: FAILED\n" in ran.out
    assert "Error: the job is FAILED: the loss became NaN" in ran.err


def test_one_that_is_not_there_is_not_waited_for(firectl, api):
    ran = firectl("get", "fine-tuning-job", "nobody", "--watch")
    assert (ran.code, ran.out) == (1, "")
    assert "not found" in ran.err


def test_one_that_is_deleted_meanwhile_is_told_with_its_last_state(firectl, api):
    gone = api.refusal(404, 5, "not found")
    running = seen("fineTuningJobs", "RUNNING")
    api.on("GET", f"{HOME}/fineTuningJobs/x", running, running, gone)
    ran = firectl("get", "fine-tuning-job", "x", "--watch")
    assert ran.code == 3
    assert "State: RUNNING\n" in ran.out
    assert "the job was deleted" in ran.err


def test_quiet_watching_prints_the_result_alone(firectl, api):
    api.on("GET", f"{HOME}/models/x", seen("models", "UPLOADING"), seen("models", "READY"))
    ran = firectl("get", "model", "x", "--watch", "--quiet")
    assert (ran.code, ran.err) == (0, "")
