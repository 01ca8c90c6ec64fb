"""cancel, pause and resume: the same commands for every kind of job."""

from __future__ import annotations

import pytest

from cli.resources import JOBS, RESOURCES

ACCOUNT = "accounts/acme"


def state(kind, word, message=""):
    prefix = "" if kind == "fine-tuning-job" else "JOB_STATE_"
    name = f"{ACCOUNT}/{RESOURCES[kind].collection}/j"
    return {"name": name, "state": prefix + word, "status": {"code": "OK", "message": message}}


@pytest.fixture(params=JOBS)
def kind(request):
    return request.param


@pytest.fixture
def path(kind):
    return f"/v1/{ACCOUNT}/{RESOURCES[kind].collection}/j"


@pytest.mark.parametrize(("verb", "end"), [("pause", "PAUSED"), ("cancel", "CANCELLED")])
def test_a_job_is_stopped_and_how_to_go_on_is_told(firectl, api, kind, path, verb, end):
    api.on("POST", f"{path}:{verb}", {})
    api.on("GET", path, state(kind, "RUNNING"), state(kind, end))
    ran = firectl(verb, kind, "j", "--wait")
    assert ran.code == 0, ran.err
    assert end in ran.out
    assert f"firectl resume {kind} j" in ran.err


def test_without_wait_a_pause_shows_the_job_as_it_is(firectl, api, kind, path):
    api.on("POST", f"{path}:pause", {})
    api.on("GET", path, state(kind, "RUNNING", "pausing"))
    assert "RUNNING" in firectl("pause", kind, "j").out


def test_a_job_that_ends_while_it_is_paused_ends_the_wait(firectl, api, kind, path):
    api.on("POST", f"{path}:pause", {})
    api.on("GET", path, state(kind, "FAILED"))
    assert "FAILED" in firectl("pause", kind, "j", "--wait").out


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_of_a_job_that_completed_before_it_stopped_no_resume_is_advised(firectl, api, kind, path, verb):
    api.on("POST", f"{path}:{verb}", {})
    api.on("GET", path, state(kind, "RUNNING"), state(kind, "COMPLETED"))
    ran = firectl(verb, kind, "j", "--wait")
    assert (ran.code, "COMPLETED" in ran.out) == (0, True)
    assert "resume" not in ran.err


def test_of_a_job_that_would_only_fail_again_no_resume_is_advised(firectl, api, kind, path):
    failed = state(kind, "FAILED", "the loss diverged")
    failed["status"]["code"] = "INVALID_ARGUMENT"
    api.on("POST", f"{path}:resume", state(kind, "PENDING"))
    api.on("GET", path, failed)
    ran = firectl("resume", kind, "j", "--wait")
    assert ran.code == 3
    assert "go on from its last checkpoint" not in ran.err
    assert "firectl logs j" in ran.err


def test_a_job_is_resumed(firectl, api, kind, path):
    api.on("POST", f"{path}:resume", state(kind, "PENDING"))
    ran = firectl("resume", kind, "j")
    assert ran.code == 0
    assert "PENDING" in ran.out
    assert f"firectl get {kind} j --watch" in ran.err


def test_what_the_server_refuses_is_told(firectl, api, kind, path):
    api.on("POST", f"{path}:pause", api.refusal(400, 9, "cannot pause job in state: JOB_STATE_COMPLETED"))
    ran = firectl("pause", kind, "j")
    assert ran.code == 1
    assert "cannot pause job in state: JOB_STATE_COMPLETED" in ran.err


def test_who_waits_for_a_job_that_is_paused_is_told_how_to_go_on(firectl, api, kind, path):
    api.on("POST", f"{path}:resume", state(kind, "PENDING"))
    api.on("GET", path, state(kind, "RUNNING"), state(kind, "PAUSED", "paused"))
    ran = firectl("resume", kind, "j", "--wait")
    assert ran.code == 3
    assert "the job is PAUSED" in ran.err
    assert f"firectl resume {kind} j" in ran.err
