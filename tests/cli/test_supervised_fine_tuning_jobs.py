"""Supervised fine-tuning jobs: what is sent for flags, following a job, stopping it and going on with it."""

import json

import pytest

HOME = "/v1/accounts/acme"
JOBS = f"{HOME}/supervisedFineTuningJobs"
NAME = "accounts/acme/supervisedFineTuningJobs/j"
BASE = ["--base-model", "accounts/fireworks/models/llama", "--dataset", "my-rows"]


def job(state, message="", code="OK", **more):
    status = {"code": code, "message": message}
    return {"name": NAME, "state": f"JOB_STATE_{state}", "status": status, **more}


@pytest.fixture
def server(api):
    api.on("POST", JOBS, job("CREATING"))
    return api


@pytest.mark.parametrize(
    "words", [("create", "sftj"), ("sftjs", "create"), ("supervised-fine-tuning-job", "create")]
)
def test_a_job_is_created_under_every_name_and_its_id_printed(firectl, server, words):
    ran = firectl(*words, *BASE, "--job-id", "j", "--output-model", "tuned", "--epochs", "2")
    assert (ran.code, ran.out) == (0, "j\n")
    (sent,) = server.sent("POST")
    assert sent.query == {"supervisedFineTuningJobId": "j"}
    assert sent.body == {
        "baseModel": "accounts/fireworks/models/llama",
        "dataset": "my-rows",
        "outputModel": "tuned",
        "epochs": 2,
    }
    assert "firectl get supervised-fine-tuning-job j" in ran.err


def test_every_flag_has_its_field(firectl, server):
    flags = {
        "--evaluation-dataset": ("held-out", {"evaluationDataset": "held-out"}),
        "--learning-rate": ("1e-4", {"learningRate": 1e-4}),
        "--max-context-length": ("4096", {"maxContextLength": 4096}),
        "--batch-size": ("32768", {"batchSize": 32768}),
        "--batch-size-samples": ("16", {"batchSizeSamples": 16}),
        "--gradient-accumulation-steps": ("2", {"gradientAccumulationSteps": 2}),
        "--learning-rate-warmup-steps": ("10", {"learningRateWarmupSteps": 10}),
        "--lora-rank": ("16", {"loraRank": 16}),
        "--optimizer-weight-decay": ("0.01", {"optimizerWeightDecay": 0.01}),
        "--mtp-num-draft-tokens": ("2", {"mtpNumDraftTokens": 2}),
        "--aws-credentials-secret": ("s", {"awsS3Config": {"credentialsSecret": "s"}}),
        "--aws-iam-role": ("r", {"awsS3Config": {"iamRoleArn": "r"}}),
        "--azure-tenant-id": ("t", {"azureBlobStorageConfig": {"tenantId": "t"}}),
        "--jinja-template": ("{{ x }}", {"jinjaTemplate": "{{ x }}"}),
        "--display-name": ("My job", {"displayName": "My job"}),
    }
    for flag, (value, _) in flags.items():
        assert firectl("create", "sftj", *BASE, flag, value).code == 0
    sent = [
        {k: v for k, v in r.body.items() if k not in ("baseModel", "dataset")} for r in server.sent("POST")
    ]
    assert sent == [expected for _, expected in flags.values()]


def test_every_switch_has_its_field(firectl, server):
    switches = {
        "--early-stop": {"earlyStop": True},
        "--eval-auto-carveout": {"evalAutoCarveout": True},
        "--turbo": {"isTurbo": True},
        "--mtp-enable": {"mtpEnabled": True},
        "--mtp-freeze-base-model": {"mtpFreezeBaseModel": True},
        "--use-reservation=true": {"useReservation": True},
        "--full-parameter-tuning": {"loraRank": 0},
        "--wandb": {"wandbConfig": {"enabled": True}},
    }
    for switch in switches:
        assert firectl("create", "sftj", *BASE, switch).code == 0
    sent = [
        {k: v for k, v in r.body.items() if k not in ("baseModel", "dataset")} for r in server.sent("POST")
    ]
    assert sent == list(switches.values())


def test_weights_and_biases_take_what_is_missing_from_the_environment(firectl, server):
    env = {"WANDB_API_KEY": "secret", "WANDB_PROJECT": "p", "WANDB_ENTITY": "e"}
    firectl("create", "sftj", *BASE, env=env)
    firectl("create", "sftj", *BASE, "--wandb-project", "mine", env=env)
    first, second = (sent.body for sent in server.sent("POST"))
    assert "wandbConfig" not in first
    assert second["wandbConfig"] == {"enabled": True, "apiKey": "secret", "project": "mine", "entity": "e"}


def test_what_the_server_refuses_is_told_in_its_words(firectl, server):
    server.on("POST", JOBS, server.refusal(400, 3, "isTurbo is not supported: there is one way to train"))
    ran = firectl("create", "sftj", *BASE, "--turbo")
    assert (ran.code, ran.out) == (1, "")
    assert "isTurbo is not supported: there is one way to train" in ran.err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--base-model", "b"], 1, "--dataset"),
        (["--dataset", "d"], 1, "--base-model"),
        ([*BASE, "--full-parameter-tuning", "--lora-rank", "8"], 2, "leave --lora-rank out"),
        ([*BASE, "--epochs", "half"], 2, "--epochs"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_sent(firectl, server, argv, code, said):
    ran = firectl("create", "sftj", *argv)
    assert (ran.code, server.requests) == (code, [])
    assert said in ran.err


def test_a_source_job_gives_its_settings_and_flags_win(firectl, server):
    source = job("COMPLETED", dataset="accounts/acme/datasets/d", baseModel="b", epochs=3, loraRank=16)
    source |= {"outputModel": "accounts/acme/models/old", "batchSize": 4096, "evalAutoCarveout": True}
    server.on("GET", f"{JOBS}/old", source)
    flags = ["--warm-start-from", "old-model", "--batch-size-samples", "8", "--epochs", "1"]
    assert firectl("create", "sftj", "--source-job", "old", *flags).code == 0
    assert server.sent("POST")[0].body == {
        "dataset": "accounts/acme/datasets/d",
        "warmStartFrom": "old-model",
        "epochs": 1,
        "loraRank": 16,
        "batchSizeSamples": 8,
        "evalAutoCarveout": True,
    }


def test_a_dry_run_shows_what_the_source_job_makes_of_the_request(firectl, server):
    server.on("GET", f"{JOBS}/old", job("COMPLETED", dataset="d", baseModel="b"))
    shown = firectl("create", "sftj", "--source-job", "old", "--dry-run").json
    assert shown["body"] == {"dataset": "d", "baseModel": "b"}
    assert server.sent("POST") == []


def test_wait_follows_the_job_to_its_model(firectl, server):
    progress = {
        "percent": 50,
        "totalInputRequests": 3000,
        "totalProcessedRequests": 1500,
        "inputTokens": 64000,
    }
    server.on(
        "GET",
        f"{JOBS}/j",
        job("VALIDATING"),
        job("RUNNING", jobProgress=progress),
        job("COMPLETED", outputModel="accounts/acme/models/tuned", baseModel="accounts/acme/models/base"),
    )
    ran = firectl("create", "sftj", *BASE, "--wait")
    assert (ran.code, ran.out) == (0, "j\n")
    assert "Completed: accounts/acme/models/tuned" in ran.err
    assert "firectl deploy tuned --deployment-id" in ran.err


def test_the_line_of_a_running_job_counts_rows_and_tokens():
    from cli.training.jobs import judge_job

    progress = {
        "percent": 50,
        "totalInputRequests": 3000,
        "totalProcessedRequests": 1500,
        "inputTokens": 64000,
    }
    line = judge_job(job("RUNNING", jobProgress=progress)).line
    assert line == "RUNNING  50%  row 1,500/3,000  64,000 tokens"
    measured = {"phase": "TRAINING", "step": 6, "maxSteps": 12, "loss": 0.0, "etaSeconds": 75}
    line = judge_job(job("RUNNING", jobProgress=progress | measured)).line
    assert line == "RUNNING  training  50%  step 6/12  64,000 tokens  loss 0.0000  1m15s left"


def test_a_failed_job_exits_3_and_names_the_way_on(firectl, server):
    failed = job("FAILED", "out of memory at step 2", "RESOURCE_EXHAUSTED")
    server.on("GET", f"{JOBS}/j", failed, {**failed, "metricsFileSignedUrl": f"{server.url}/storage/m"})
    server.on("GET", "/storage/m", server.raw(200, b'{"step": 1, "loss": 2.5}\n{"step": 2, "lo'))
    ran = firectl("create", "sftj", *BASE, "--wait")
    assert (ran.code, ran.out) == (3, "j\n")
    assert "the job is FAILED: out of memory at step 2" in ran.err
    assert "  step 1  loss 2.5" in ran.err
    assert "firectl resume supervised-fine-tuning-job j" in ran.err


def test_quiet_leaves_the_result_and_errors(firectl, server):
    server.on("GET", f"{JOBS}/j", job("RUNNING"), job("COMPLETED", outputModel="tuned"))
    ran = firectl("create", "sftj", *BASE, "--wait", "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "j\n", "")


def test_cancel_asks_and_shows_the_job_and_how_to_go_on(firectl, server):
    server.on("POST", f"{JOBS}/j:cancel", {})
    server.on("GET", f"{JOBS}/j", job("CANCELLING"), job("CANCELLED", "stopped", "CANCELLED"))
    ran = firectl("cancel", "sftj", "j", "--wait")
    assert ran.code == 0
    assert "State: JOB_STATE_CANCELLED" in ran.out
    assert "firectl resume supervised-fine-tuning-job j" in ran.err


def test_resume_goes_on_and_can_be_waited_for(firectl, server):
    server.on("POST", f"{JOBS}/j:resume", job("PENDING"))
    server.on("GET", f"{JOBS}/j", job("RUNNING"), job("COMPLETED", outputModel="tuned"))
    assert "State: JOB_STATE_PENDING" in firectl("sftj", "resume", "j").out
    ran = firectl("sftj", "resume", NAME, "--wait")
    assert ran.code == 0
    assert "Completed: accounts/acme/models/tuned" in ran.err


def test_what_it_would_cost_is_told_in_money(firectl, server):
    server.on(
        "POST",
        f"{JOBS}:estimateCost",
        {"estimatedCost": {"currencyCode": "USD", "units": "3", "nanos": 250000000}},
    )
    assert firectl("estimate-cost", "sftj", *BASE).out == "Estimated Cost: USD 3.25\n"
    cost = firectl("sftj", "estimate-cost", *BASE, "-o", "json").json["estimated_cost"]
    assert cost["units"] == "3"


def test_metrics_are_read_where_the_job_keeps_them_without_the_key(firectl, server, tmp_path):
    server.on("GET", f"{JOBS}/j", job("RUNNING", metricsFileSignedUrl=f"{server.url}/storage/m"))
    records = [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25, "eval_loss": 2.75}]
    server.on("GET", "/storage/m", server.raw(200, "".join(f"{json.dumps(r)}\n" for r in records).encode()))

    ran = firectl("export-metrics", "sftj", "j")
    assert [json.loads(line) for line in ran.out.splitlines()] == records
    assert firectl("sftj", "export-metrics", "j", "-o", "json").json == records
    assert all("authorization" not in request.headers for request in server.sent("GET", "/storage/m"))

    target = tmp_path / "metrics.csv"
    ran = firectl("export-metrics", "sftj", "j", "--filename", str(target))
    assert (ran.code, ran.out) == (0, "")
    assert target.read_text() == "step,loss,eval_loss\n1,2.5,\n2,2.25,2.75\n"


def test_a_job_without_metrics_exports_nothing_and_says_so(firectl, server):
    server.on("GET", f"{JOBS}/j", job("PENDING", metricsFileSignedUrl=""))
    ran = firectl("export-metrics", "sftj", "j", "--format", "csv")
    assert (ran.code, ran.out) == (0, "")
    assert f"{NAME} has logged nothing yet" in ran.err


def test_metrics_that_cannot_be_read_are_told(firectl, server):
    server.on("GET", f"{JOBS}/j", job("RUNNING", metricsFileSignedUrl=f"{server.url}/storage/m"))
    server.on("GET", "/storage/m", server.raw(403, b"expired"))
    ran = firectl("export-metrics", "sftj", "j")
    assert ran.code == 1
    assert "the storage answered 403" in ran.err
    assert firectl("export-metrics", "sftj", "j", "--format", "xml").code == 2
