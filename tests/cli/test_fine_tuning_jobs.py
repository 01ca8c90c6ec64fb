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
        ("a: [1\n", [], "line 2: "),
        ("a: 1\n b: 2\n", [], "line 2: a colon where none can be"),
        ("a: 1\nb:\n    c: 1\n  d: 2\n", [], "line 4: the indentation does not fit"),
        (SETTINGS, ["--kind", "text_completion"], "add --input-template TEXT --output-template TEXT"),
        (SETTINGS, ["--kind", "text_classification", "--text", "t"], "add --label TEXT"),
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
    from cli.training.jobs import judge_job

    step = {"phase": "TRAINING", "step": 12, "maxSteps": 100, "loss": 1.23456, "tokensPerSecond": 1532.4}
    measured = {"learningRate": 2e-4, "gradNorm": 0.51234, "peakMemoryBytes": "2048000000", "etaSeconds": 75}
    line = judge_job(job("JOB_STATE_RUNNING", progress={**step, **measured, "gpuMemoryBytes": "0"})).line
    assert line == (
        "RUNNING  training  step 12/100  loss 1.2346  rate 0.0002  gradient 0.512  1,532 tokens/s  "
        "memory 2.0 GB  1m15s left"
    )
    assert judge_job(job("PENDING", "no worker is free")).line == "PENDING  no worker is free"


def test_a_failed_job_exits_3_with_the_reason_and_what_it_logged_last(firectl, server, settings):
    server.on("GET", PATH, job("RUNNING"), job("FAILED", "the loss became NaN at step 7", "INTERNAL"))
    server.on("GET", f"{PATH}:metrics", {"metrics": [{"step": 6, "loss": 9.5}, {"step": 7, "loss": "NaN"}]})
    ran = firectl("create", "fine-tuning-job", "--settings-file", settings, "-w")
    assert (ran.code, ran.out) == (3, "j\n")
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


@pytest.mark.parametrize(
    "content", ["learning_rate: .nan", "epochs: -.inf", "a: !!binary aGk=", "a: &a [*a]"]
)
def test_a_file_with_what_no_request_can_hold_is_told(firectl, server, tmp_path, content):
    path = tmp_path / "s.yaml"
    path.write_text(f"dataset: d\n{content}\n")
    ran = firectl("create", "fine-tuning-job", "--settings-file", str(path))
    assert (ran.code, server.requests) == (1, [])
    assert ran.err.startswith(f"Error: {path} holds what no request can: ")


def test_a_dry_run_shows_no_key_of_the_environment(firectl, server, settings):
    argv = ("create", "fine-tuning-job", "--settings-file", settings, "--wandb-project", "p", "--dry-run")
    ran = firectl(*argv, env={"WANDB_API_KEY": "secret"})
    assert ran.json["body"]["wandbApiKey"] == "(not shown)"
    argv = ("create", "sftj", "--dataset", "d", "--base-model", "m", "--wandb-api-key", "secret", "--dry-run")
    ran = firectl(*argv)
    assert ran.json["body"]["wandbConfig"] == {"apiKey": "(not shown)", "enabled": True}


def test_numbers_and_dates_in_the_file_are_read_as_they_are_meant(firectl, server, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "dataset: d\nbase_model: b\nconversation: {}\nlearning_rate: 2e-5\nmodel_id: 2030-01-01\n"
    )
    assert firectl("create", "fine-tuning-job", "--settings-file", str(path)).code == 0
    body = server.sent("POST")[0].body
    assert (body["learningRate"], body["modelId"]) == (2e-5, "2030-01-01")


def test_a_draft_model_is_asked_for_and_left_to_the_server(firectl, server, settings):
    server.on(
        "POST", f"{HOME}/fineTuningJobs", server.refusal(400, 3, "draftModel: draft models are not available")
    )
    ran = firectl("create", "fine-tuning-job", "--settings-file", settings, "--draft-base-model", "tiny")
    assert ran.code == 1
    assert "draft models are not available" in ran.err
    assert server.sent("POST")[0].body["draftModel"] == {"baseModel": "tiny"}


def test_a_mistyped_kind_is_answered_with_the_kinds(firectl, server, settings):
    ran = firectl("create", "fine-tuning-job", "--settings-file", settings, "--kind", "conversational")
    assert (ran.code, server.requests) == (1, [])
    assert "did you mean conversation?" in ran.err


def test_what_a_job_is_called_can_be_changed(firectl, server):
    server.on("PATCH", PATH, job("RUNNING", displayName="Second try"))
    assert firectl("update", "ftj", "j", "--display-name", "Second try").code == 0
    (sent,) = server.sent("PATCH")
    assert (sent.body, sent.query) == ({"displayName": "Second try"}, {"updateMask": "display_name"})


def test_metrics_are_given_out_a_record_a_step(firectl, server):
    server.on("GET", f"{PATH}:metrics", {"metrics": [{"step": 1, "loss": 2.5}]})
    assert firectl("export-metrics", "fine-tuning-job", "j").out == '{"step": 1, "loss": 2.5}\n'
    assert firectl("ftj", "export-metrics", "j", "--format", "csv").out == "step,loss\n1,2.5\n"


def test_a_job_is_queued_with_a_priority_and_moved(firectl, server):
    server.on("POST", PATH.rpartition("/")[0], {"name": NAME})
    server.on("PATCH", PATH, {"name": NAME, "priority": 20})
    flags = ("--dataset", "d", "--base-model", "b", "--kind", "conversation")
    assert firectl("create", "ftj", *flags, "--priority", "-5").code == 0
    assert server.sent("POST")[0].body["priority"] == -5
    assert firectl("update", "ftj", "j", "--priority", "20").code == 0
    assert server.sent("PATCH")[0].body == {"priority": 20}


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ("text_completion:\ninput_template: '{q}'\noutput_template: '{a}'\n",
         {"textCompletion": {"inputTemplate": "{q}", "outputTemplate": "{a}"}}),
        ("conversation:\njinja_template:\n", {"conversation": {}}),
        ("text_classification:\ntext: t\nlabel: l\n", {"textClassification": {"text": "t", "label": "l"}}),
    ],
)  # fmt: skip
def test_what_stands_beside_its_kind_is_taken_as_meant(firectl, server, tmp_path, lines, kind):
    path = tmp_path / "s.yaml"
    path.write_text(f"dataset: d\n{lines}base_model: b\n")
    assert firectl("create", "fine-tuning-job", "--settings-file", str(path)).code == 0
    assert server.sent("POST")[0].body == {"dataset": "d", "baseModel": "b", **kind}
