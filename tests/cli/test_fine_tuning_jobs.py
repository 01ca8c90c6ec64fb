"""Fine-tuning jobs: settings file and flags, and following a job."""

import pytest

HOME = "/v1/accounts/acme"
PATH = f"{HOME}/fineTuningJobs/j"
NAME = "accounts/acme/fineTuningJobs/j"
SETTINGS = """\
dataset: my-rows
base_model: accounts/fireworks/models/llama
conversation: {}
epochs: 2.0
learning_rate: 1.0e-4
lora_rank: 16
job_id: j
model_id: my-model
"""


def job(state, message="", code="OK", **more):
    return {"name": NAME, "state": state, "status": {"code": code, "message": message}, **more}


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS)
    return str(path)


@pytest.fixture
def server(api):
    api.on("POST", f"{HOME}/fineTuningJobs", job("CREATING"))
    return api


def test_a_settings_file_is_sent_and_the_jobs_id_printed(firectl, server, settings):
    ran = firectl("create", "fine-tuning-job", "--settings-file", settings, "--display-name", "My Job")
    assert (ran.code, ran.out) == (0, "j\n")
    (sent,) = server.sent("POST")
    assert sent.query == {"fineTuningJobId": "j"}
    assert sent.body == {
        "dataset": "my-rows",
        "baseModel": "accounts/fireworks/models/llama",
        "conversation": {},
        "epochs": 2.0,
        "learningRate": 1e-4,
        "loraRank": 16,
        "modelId": "my-model",
        "displayName": "My Job",
    }


@pytest.mark.parametrize(
    ("flags", "changed", "gone"),
    [
        (["--epochs", "1", "--lora-rank", "8"], {"epochs": 1.0, "loraRank": 8}, ()),
        (["--warm-start-from", "earlier"], {"warmStartFrom": "earlier"}, ("baseModel",)),
        (
            ["--input-template", "{q}", "--output-template", "{a}"],
            {"textCompletion": {"inputTemplate": "{q}", "outputTemplate": "{a}"}},
            ("conversation",),
        ),
        (["--conversation-template", "{{ x }}"], {"conversation": {"jinjaTemplate": "{{ x }}"}}, ()),
        (["--evaluation-split", "0.2"], {"evaluationSplit": 0.2, "evaluation": True}, ()),
        (["--kind", "text_classification", "--text", "t", "--label", "l"],
         {"textClassification": {"text": "t", "label": "l"}}, ("conversation",)),
    ],
)  # fmt: skip
def test_flags_win_over_the_settings_file(firectl, server, settings, flags, changed, gone):
    assert firectl("create", "fine-tuning-job", "--settings-file", settings, *flags).code == 0
    body = server.sent("POST")[0].body
    assert {key: body[key] for key in changed} == changed
    assert not set(gone) & set(body)


def test_flags_alone_are_enough(firectl, server):
    argv = ["--base-model", "b", "--dataset", "d", "--kind", "conversation", "--job-id", "mine"]
    assert firectl("fine-tuning-job", "create", *argv).code == 0
    assert server.sent("POST")[0].body == {"baseModel": "b", "dataset": "d", "conversation": {}}
    assert server.sent("POST")[0].query == {"fineTuningJobId": "mine"}


def test_an_empty_kind_in_the_file_counts(firectl, server, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("dataset: d\nbase_model: b\nconversation:\n")
    assert firectl("create", "fine-tuning-job", "--settings-file", str(path)).code == 0
    assert server.sent("POST")[0].body["conversation"] == {}


@pytest.mark.parametrize(
    ("content", "flags", "said"),
    [
        ("dataset: d\nconversation: {}\n", [], "--base-model"),
        ("base_model: b\nconversation: {}\n", [], "--dataset"),
        ("base_model: b\ndataset: d\n", [], "--kind"),
        ("just words\n", [], "key: value"),
        ("a: [1\n", [], "is not YAML"),
        (SETTINGS, ["--kind", "poetry"], "poetry"),
        (SETTINGS, ["--kind", "conversation", "--label", "l"], "label"),
    ],
)
def test_settings_that_cannot_work_are_told_before_anything_is_sent(
    firectl, server, tmp_path, content, flags, said
):
    path = tmp_path / "s.yaml"
    path.write_text(content)
    ran = firectl("create", "fine-tuning-job", "--settings-file", str(path), *flags)
    assert ran.code == 1
    assert said in ran.err
    assert server.requests == []


def test_a_setting_that_is_no_field_is_left_to_the_server(firectl, server, settings, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(SETTINGS + "learn_rate: 1\n")
    firectl("create", "fine-tuning-job", "--settings-file", str(path))
    assert server.sent("POST")[0].body["learnRate"] == 1


def test_wait_follows_the_job_to_its_model(firectl, server, settings):
    step = {"phase": "TRAINING", "step": 12, "maxSteps": 100, "loss": 1.23456, "tokensPerSecond": 1532.4}
    server.on(
        "GET",
        PATH,
        job("PENDING", "waiting for a worker"),
        job("RUNNING", progress={**step, "etaSeconds": 75}),
        job("COMPLETED", modelId="my-model", baseModel="accounts/fireworks/models/llama"),
    )
    ran = firectl("create", "fine-tuning-job", "--settings-file", settings, "--wait")
    assert (ran.code, ran.out) == (0, "j\n")
    assert "accounts/acme/models/my-model" in ran.err
    assert "firectl deploy my-model --deployment-id" in ran.err


def test_the_line_of_a_running_job_tells_all_that_is_known():
    from cli.commands.fine_tuning_jobs import judge_job

    step = {"phase": "TRAINING", "step": 12, "maxSteps": 100, "loss": 1.23456, "tokensPerSecond": 1532.4}
    line = judge_job(job("JOB_STATE_RUNNING", progress={**step, "etaSeconds": 75})).line
    assert line == "RUNNING  training  step 12/100  loss 1.2346  1,532 tokens/s  1m15s left"
    assert judge_job(job("PENDING", "no worker is free")).line == "PENDING  no worker is free"


def test_a_failed_job_exits_1_with_the_reason_and_what_it_logged_last(firectl, server, settings):
    server.on("GET", PATH, job("RUNNING"), job("FAILED", "the loss became NaN at step 7", "INTERNAL"))
    server.on("GET", f"{PATH}:metrics", {"metrics": [{"step": 6, "loss": 9.5}, {"step": 7, "loss": "NaN"}]})
    ran = firectl("create", "fine-tuning-job", "--settings-file", settings, "-w")
    assert (ran.code, ran.out) == (1, "j\n")
    assert "Error: the job is FAILED: the loss became NaN at step 7" in ran.err
    assert "  step 7  loss NaN" in ran.err


def test_json_with_wait_is_the_finished_job(firectl, server, settings):
    server.on("GET", PATH, job("COMPLETED", modelId="my-model"))
    ran = firectl("create", "fine-tuning-job", "--settings-file", settings, "--wait", "-o", "json")
    assert ran.json["state"] == "COMPLETED"


def test_the_wandb_key_comes_from_the_environment(firectl, server, settings):
    argv = ("create", "fine-tuning-job", "--settings-file", settings)
    firectl(*argv, env={"WANDB_API_KEY": "secret"})
    firectl(*argv, "--wandb-project", "p", env={"WANDB_API_KEY": "secret"})
    first, second = (sent.body for sent in server.sent("POST"))
    assert "wandbApiKey" not in first
    assert second["wandbApiKey"] == "secret"
