"""Preference tuning jobs: what is sent for flags and for a source job, and where metrics are read."""

import json

import pytest

JOBS = "/v1/accounts/acme/dpoJobs"
NAME = "accounts/acme/dpoJobs/j"
BASE = ["--base-model", "accounts/fireworks/models/llama", "--dataset", "my-pairs"]
TRAINING = {"baseModel": "accounts/fireworks/models/llama"}


def job(state, message="", code="OK", **more):
    status = {"code": code, "message": message}
    return {"name": NAME, "state": f"JOB_STATE_{state}", "status": status, **more}


@pytest.fixture
def server(api):
    api.on("POST", JOBS, job("CREATING"))
    return api


@pytest.mark.parametrize("words", [("create", "dpoj"), ("dpojs", "create"), ("dpo-job", "create")])
def test_a_job_is_created_under_every_name_and_its_id_printed(firectl, server, words):
    ran = firectl(*words, *BASE, "--job-id", "j", "--output-model", "polite")
    assert (ran.code, ran.out) == (0, "j\n")
    (sent,) = server.sent("POST")
    assert sent.query == {"dpoJobId": "j"}
    assert sent.body == {"dataset": "my-pairs", "trainingConfig": {**TRAINING, "outputModel": "polite"}}
    assert "firectl get dpo-job j --watch" in ran.err


def test_every_flag_has_its_field(firectl, server):
    training = {
        "--epochs": ("2", {"epochs": 2}),
        "--learning-rate": ("1e-5", {"learningRate": 1e-5}),
        "--learning-rate-warmup-steps": ("3", {"learningRateWarmupSteps": 3}),
        "--max-context-length": ("4096", {"maxContextLength": 4096}),
        "--batch-size": ("32768", {"batchSize": 32768}),
        "--batch-size-samples": ("16", {"batchSizeSamples": 16}),
        "--gradient-accumulation-steps": ("2", {"gradientAccumulationSteps": 2}),
        "--lora-rank": ("16", {"loraRank": 16}),
        "--lora-alpha": ("8", {"loraAlpha": 8}),
        "--lora-dropout": ("0.1", {"loraDropout": 0.1}),
        "--lora-target-modules": ("q_proj,v_proj", {"loraTargetModules": ["q_proj", "v_proj"]}),
        "--optimizer-weight-decay": ("0.01", {"optimizerWeightDecay": 0.01}),
        "--jinja-template": ("{{ x }}", {"jinjaTemplate": "{{ x }}"}),
    }
    others = {
        "--evaluation-dataset": ("held-out", {"evaluationDataset": "held-out"}),
        "--display-name": ("Mine", {"displayName": "Mine"}),
        "--priority": ("5", {"priority": 5}),
        "--loss-method": ("ORPO", {"lossConfig": {"method": "ORPO"}}),
        "--beta": ("0.2", {"lossConfig": {"dpo": {"beta": 0.2}}}),
        "--lambda": ("0.5", {"lossConfig": {"orpo": {"lambda": 0.5}}}),
        "--aws-iam-role": ("r", {"awsS3Config": {"iamRoleArn": "r"}}),
    }
    for flag, (value, _) in (training | others).items():
        ran = firectl("create", "dpoj", *BASE, flag, value)
        assert ran.code == 0, ran.err
    expected = [{"trainingConfig": TRAINING | field} for _, field in training.values()]
    expected += [{"trainingConfig": TRAINING, **field} for _, field in others.values()]
    assert [request.body for request in server.sent("POST")] == [
        {"dataset": "my-pairs", **body} for body in expected
    ]


def test_a_source_job_gives_its_settings_and_flags_win(firectl, server):
    source = job(
        "COMPLETED",
        dataset="accounts/acme/datasets/d",
        trainingConfig={"baseModel": "b", "outputModel": "old", "epochs": 3, "loraRank": 16, "batchSize": 64},
        lossConfig={"method": "DPO", "dpo": {"beta": 0.3}},
        evalAutoCarveout=True,
    )
    server.on("GET", f"{JOBS}/old", source)
    ran = firectl("create", "dpoj", "--source-job", "old", "--epochs", "1", "--batch-size-samples", "4")
    assert ran.code == 0, ran.err
    flags = ["--warm-start-from", "a", "--loss-method", "ORPO", "--evaluation-dataset", "e"]
    assert firectl("create", "dpoj", "--source-job", "old", *flags).code == 0
    first, second = (request.body for request in server.sent("POST"))
    assert first == {
        "dataset": "accounts/acme/datasets/d",
        "trainingConfig": {"baseModel": "b", "epochs": 1, "loraRank": 16, "batchSizeSamples": 4},
        "lossConfig": {"method": "DPO", "dpo": {"beta": 0.3}},
        "evalAutoCarveout": True,
    }
    assert second == {
        "dataset": "accounts/acme/datasets/d",
        "trainingConfig": {"warmStartFrom": "a", "epochs": 3, "loraRank": 16, "batchSize": 64},
        "lossConfig": {"method": "ORPO"},
        "evaluationDataset": "e",
    }


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--base-model", "b"], 1, "--dataset"),
        (["--dataset", "d"], 1, "--base-model"),
        ([*BASE, "--loss-method", "GRPO"], 2, "DPO"),
        ([*BASE, "--beta", "much"], 2, "--beta"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_sent(firectl, server, argv, code, said):
    ran = firectl("create", "dpoj", *argv)
    assert (ran.code, server.requests) == (code, [])
    assert said in ran.err


def test_a_job_is_followed_to_its_model(firectl, server):
    done = job("COMPLETED", trainingConfig={"baseModel": "b", "outputModel": "accounts/acme/models/polite"})
    server.on("GET", f"/v1/{NAME}", job("RUNNING", jobProgress={"percent": 50}), done)
    ran = firectl("create", "dpoj", *BASE, "--wait")
    assert (ran.code, ran.out) == (0, "j\n")
    assert "Completed: accounts/acme/models/polite" in ran.err
    assert "firectl create deployment b --enable-addons --wait" in ran.err


def test_the_list_shows_base_and_model(firectl, api):
    config = {"baseModel": "accounts/acme/models/b", "outputModel": "accounts/acme/models/polite"}
    api.on("GET", JOBS, {"dpoJobs": [job("RUNNING", trainingConfig=config)], "nextPageToken": ""})
    ran = firectl("list", "dpo-jobs")
    assert ran.code == 0
    assert all(word in ran.out for word in ("BASE MODEL", " b ", "polite", "RUNNING"))


def test_a_job_is_estimated(firectl, api):
    api.on("POST", f"{JOBS}:estimateCost", {"estimatedCost": {"currencyCode": "USD", "units": "2"}})
    ran = firectl("estimate-cost", "dpoj", *BASE)
    assert "Estimated Cost: " in ran.out
    assert api.sent("POST")[0].body == {"dataset": "my-pairs", "trainingConfig": TRAINING}


def test_metrics_are_none_before_the_first_step(firectl, api):
    api.on("GET", f"/v1/{NAME}:getMetricsFileEndpoint", {"signedUrl": ""})
    ran = firectl("dpo-job", "export-metrics", "j", "--output", "json")
    assert (ran.code, json.loads(ran.out)) == (0, [])
    assert "has logged nothing yet" in ran.err
