"""Checkpoints and plots of jobs: how they are asked for, and what is said of them."""

from __future__ import annotations

import pytest

JOB = "accounts/acme/supervisedFineTuningJobs/j"
CHECKPOINT = f"{JOB}/checkpoints/sampler-10"
FOUND = {
    "name": CHECKPOINT,
    "createTime": "2030-01-01T00:00:00Z",
    "step": 10,
    "checkpointType": "CHECKPOINT_TYPE_INFERENCE_LORA",
    "promotable": True,
}
MODEL = {"name": "accounts/acme/models/early", "state": "READY"}


@pytest.fixture
def sftj(api):
    """A job of the newer collection, found by its id alone."""
    for other in ("fineTuningJobs", "dpoJobs"):
        api.on("GET", f"/v1/accounts/acme/{other}/j", api.refusal(404, 5, "not found"))
    api.on("GET", f"/v1/{JOB}", {"name": JOB})


def test_checkpoints_are_listed_by_the_job_s_id(firectl, api, sftj):
    api.on("GET", f"/v1/{JOB}/checkpoints", {"checkpoints": [FOUND]})
    ran = firectl("list", "checkpoints", "j")
    assert "sampler-10" in ran.out
    assert "CHECKPOINT_TYPE_INFERENCE_LORA" in ran.out
    assert firectl("list", "checkpoint", JOB, "-o", "json").json[0]["name"] == CHECKPOINT


def test_a_job_that_is_nowhere_is_said_to_be(firectl, api):
    for collection in ("fineTuningJobs", "supervisedFineTuningJobs", "dpoJobs"):
        api.on("GET", f"/v1/accounts/acme/{collection}/j", api.refusal(404, 5, "not found"))
    ran = firectl("list", "checkpoints", "j")
    assert (ran.code, 'there is no fine-tuning job "j"' in ran.err) == (1, True)


def test_a_checkpoint_is_promoted_and_followed_to_its_model(firectl, api, sftj):
    api.on("POST", f"/v1/{CHECKPOINT}:promote", {"model": {**MODEL, "state": "UPLOADING"}})
    api.on("GET", f"/v1/{MODEL['name']}", MODEL)
    ran = firectl("promote", "checkpoint", "sampler-10", "--job", "j", "--output-model", "early")
    assert ran.code == 0, ran.err
    assert "firectl deploy early" in ran.err
    (sent,) = api.sent("POST", f"/v1/{CHECKPOINT}:promote")
    assert sent.body == {"outputModel": "early", "asyncPromotion": True}
    assert firectl("promote", "checkpoint", CHECKPOINT, "--output-model", "early").code == 0


def test_an_id_without_its_job_is_asked_about(firectl, api):
    ran = firectl("promote", "checkpoint", "sampler-10", "--output-model", "early")
    assert (ran.code, 'of which job is "sampler-10"?' in ran.err) == (2, True)


def test_a_plot_is_written_to_a_file(firectl, api, tmp_path):
    url = f"{api.url}/storage/plot"
    api.on("GET", f"/v1/{JOB}:getPlotEndpoint", {"svgSignedUrl": url, "pngSignedUrl": ""})
    api.on("GET", "/storage/plot", api.raw(200, b"<svg/>"))
    target = tmp_path / "loss.svg"
    ran = firectl("export-metrics", "sftj", "j", "--plot", str(target))
    assert (ran.code, ran.out, target.read_bytes()) == (0, "", b"<svg/>")
    assert all("authorization" not in request.headers for request in api.sent("GET", "/storage/plot"))
    none = firectl("export-metrics", "sftj", "j", "--plot", str(tmp_path / "loss.png"))
    assert "has no plot yet" in none.err
    assert firectl("export-metrics", "sftj", "j", "--plot", "loss.pdf").code == 2
