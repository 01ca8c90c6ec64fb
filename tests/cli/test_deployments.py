"""Creating, changing and waiting for deployments, and putting adapters on them."""

import json
import os
import signal
import subprocess
import sys

import pytest

HOME = "/v1/accounts/acme"
PATH = f"{HOME}/deployments/d"
NAME = "accounts/acme/deployments/d"


def deployment(state, message="", code="OK", **stats):
    return {"name": NAME, "state": state, "status": {"code": code, "message": message}, "replicaStats": stats}


def deployed(state, message="", code="OK", **more):
    name = "accounts/acme/deployedModels/m-1"
    return {"name": name, "state": state, "status": {"code": code, "message": message}, **more}


def test_create_sends_what_was_given_and_nothing_else(firectl, api):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    firectl(
        *(
            "create",
            "deployment",
            "accounts/fireworks/models/llama",
            "--enable-addons",
            "--deployment-id",
            "d",
        ),
        *("--min-replica-count", "0", "--max-replica-count", "2", "--accelerator-type", "H100_80GB"),
        *("--scale-down-window", "5m", "--load-targets", "default=0.8,requests_per_second=2"),
        *(
            "--long-prompt=false",
            "--max-peft-batch-size",
            "8",
            "--region",
            "US_IOWA_1",
            "--disable-speculative-decoding",
        ),
    )
    (sent,) = api.sent("POST")
    assert sent.query == {"deploymentId": "d", "disableSpeculativeDecoding": "true"}
    assert sent.body == {
        "baseModel": "accounts/fireworks/models/llama",
        "enableAddons": True,
        "minReplicaCount": 0,
        "maxReplicaCount": 2,
        "acceleratorType": "NVIDIA_H100_80GB",
        "autoTune": {"longPrompt": False},
        "maxPeftBatchSize": 8,
        "autoscalingPolicy": {
            "scaleDownWindow": "300s",
            "loadTargets": {"default": 0.8, "requests_per_second": 2},
        },
        "placement": {"region": "US_IOWA_1"},
    }


def test_a_file_gives_settings_and_flags_win(firectl, api, tmp_path):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    path = tmp_path / "deployment.yaml"
    path.write_text(
        "base_model: from-file\nmin_replica_count: 1\n"
        "autoscalingPolicy: {scaleUpWindow: 10s, scaleDownWindow: 20s}\n"
    )
    firectl("create", "deployment", "--file", str(path), "--scale-up-window", "1m")
    assert api.sent("POST")[0].body == {
        "baseModel": "from-file",
        "minReplicaCount": 1,
        "autoscalingPolicy": {"scaleUpWindow": "60s", "scaleDownWindow": "20s"},
    }


def test_update_names_exactly_what_changes(firectl, api):
    api.on("PATCH", PATH, deployment("UPDATING"))
    firectl("update", "deployment", "d", "--scale-to-zero-window=5m", "--min-replica-count=0")
    (sent,) = api.sent("PATCH")
    assert sent.query == {"updateMask": "min_replica_count,autoscaling_policy.scale_to_zero_window"}
    assert sent.body == {"minReplicaCount": 0, "autoscalingPolicy": {"scaleToZeroWindow": "300s"}}


def test_wait_tells_what_happens_until_it_is_ready(firectl, api):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    api.on(
        "GET",
        PATH,
        deployment("CREATING", "waiting for a GPU", pendingSchedulingReplicaCount=1),
        api.refusal(500, 13, "the api restarts"),
        api.lost(),
        deployment("CREATING", downloadingModelReplicaCount=1),
        deployment("READY", readyReplicaCount=1),
    )
    ran = firectl("create", "deployment", "m", "--wait")
    assert ran.code == 0
    assert ran.out.splitlines()[:2] == [f"Name: {NAME}", "State: READY"]
    assert "CREATING  replicas: 1 waiting for a place  waiting for a GPU" in ran.err
    assert "READY  replicas: 1 ready" in ran.err


def test_json_output_is_one_document_even_with_wait(firectl, api):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    api.on("GET", PATH, deployment("READY"))
    assert firectl("create", "deployment", "m", "--wait", "-o", "json").json["state"] == "READY"


def test_a_failed_deployment_names_its_reason(firectl, api):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    api.on(
        "GET", PATH, deployment("CREATING"), deployment("FAILED", "out of GPU memory", "RESOURCE_EXHAUSTED")
    )
    api.on("GET", f"{PATH}/terminationMessage", {"message": "loading weights\nCUDA out of memory"})
    ran = firectl("create", "deployment", "m", "--wait")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines()[-6:] == [
        "Error: the deployment failed: out of GPU memory",
        "  the last replica that failed said:",
        "  loading weights",
        "  CUDA out of memory",
        "Next: watch it: firectl get deployment d --watch",
        "Next: delete it: firectl delete deployment d",
    ]


def test_what_the_failure_tells_already_is_not_told_twice(firectl, api):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    api.on("GET", PATH, deployment("FAILED", "CUDA out of memory", "INTERNAL"))
    api.on("GET", f"{PATH}/terminationMessage", {"message": "CUDA out of memory"})
    assert firectl("create", "deployment", "m", "--wait").err.count("CUDA out of memory") == 2  # state, error


def test_a_wait_that_takes_too_long_says_how_to_go_on(firectl, api):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    api.on("GET", PATH, deployment("CREATING", "no node fits"))
    ran = firectl("create", "deployment", "m", "--wait", "--wait-timeout", "50ms")
    assert ran.code == 4
    assert "was not ready after 0s" in ran.err
    assert "no node fits" in ran.err
    assert "firectl get deployment d" in ran.err
    assert "firectl delete deployment d" in ran.err


def test_ctrl_c_leaves_the_deployment_and_says_so(api, home):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    api.on("GET", PATH, deployment("CREATING", "loading"))
    # A shell that starts the tests in the background has them ignore Ctrl-C, and children inherit that.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{listen}; from cli.main import main; main()"
    argv = [sys.executable, "-c", program, "create", "deployment", "m", "--wait"]
    settings = {
        **os.environ,
        "HOME": str(home),
        "FIREWORKS_BASE_URL": api.url,
        "FIREWORKS_API_KEY": "fw_test",
        "FIREWORKS_ACCOUNT_ID": "acme",
    }
    with subprocess.Popen(argv, env=settings, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline(), process.stderr.readline()]
        assert "CREATING  loading" in lines[1]
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait(timeout=20) == 130
    assert f"{NAME} lives on" in told
    assert "firectl delete deployment d" in told
    assert api.sent("DELETE") == []


def test_scale_delete_and_undelete(firectl, api):
    api.on("PATCH", f"{PATH}:scale", {})
    api.on("GET", PATH, deployment("READY"))
    assert firectl("scale", "deployment", "d", "--replica-count", "0").code == 0
    assert api.sent("PATCH")[0].body == {"replicaCount": 0}

    api.on("POST", f"{PATH}:undelete", deployment("CREATING"))
    assert firectl("deployment", "undelete", "d", "--wait").code == 0

    api.on("DELETE", PATH, {})
    api.on("GET", PATH, deployment("DELETING"), deployment("DELETED"))
    ran = firectl("delete", "deployment", "d", "--ignore-checks", "--hard=true", "--wait")
    assert ran.code == 0
    assert api.sent("DELETE")[0].query == {"ignoreChecks": "true", "hard": "true"}


@pytest.mark.parametrize(
    "argv",
    [
        ["deploy", "m", "--deployment-id", "d"],
        ["deploy", "m", "--deployment", "d"],
        ["load-lora", "m", "--deployment", NAME],
        ["deploy", "model", "m", "--deployment", "d"],
        ["load-lora", "models", "m", "--deployment-id", "d"],
        ["model", "load-lora", "m", "--deployment", "d"],
        ["model", "deploy", "accounts/acme/models/m", "--deployment-id=d"],
    ],
)
def test_an_adapter_is_deployed_under_every_name_of_the_command(firectl, api, argv):
    api.on("POST", f"{HOME}/deployedModels", deployed("DEPLOYING"))
    api.on("GET", f"{HOME}/deployedModels/m-1", deployed("DEPLOYING"), deployed("DEPLOYED"))
    ran = firectl(*argv, "--wait")
    assert ran.code == 0
    assert "State: DEPLOYED" in ran.out
    assert api.sent("POST")[0].body == {"model": "accounts/acme/models/m", "deployment": NAME}


def test_without_a_deployment_the_server_decides(firectl, api):
    api.on(
        "POST",
        f"{HOME}/deployedModels",
        api.refusal(400, 9, "serverless is not available: pass a deployment"),
    )
    addon = {"name": "accounts/acme/models/m", "peftDetails": {"baseModel": "accounts/acme/models/base"}}
    api.on("GET", f"{HOME}/models/m", addon)
    ran = firectl("deploy", "m")
    assert ran.code == 1
    assert "serverless is not available" in ran.err
    assert "firectl deploy m --deployment-id DEPLOYMENT" in ran.err
    assert "firectl create deployment accounts/acme/models/base --enable-addons" in ran.err
    assert api.sent("POST")[0].body == {"model": "accounts/acme/models/m"}


def test_an_adapter_that_does_not_load_is_told(firectl, api):
    api.on("POST", f"{HOME}/deployedModels", deployed("DEPLOYING"))
    bad = deployed("DEPLOYING", "rank 128 is above the deployment's 64", "FAILED_PRECONDITION")
    api.on("GET", f"{HOME}/deployedModels/m-1", deployed("DEPLOYING", "no replica is up", "UNAVAILABLE"), bad)
    ran = firectl("deploy", "m", "--deployment-id", "d", "--wait")
    assert ran.code == 3
    assert "the model was not deployed: rank 128 is above" in ran.err
    assert "take it off: firectl undeploy accounts/acme/deployedModels/m-1" in ran.err


def test_undeploy_finds_the_deployed_model(firectl, api):
    mine = {"model": "accounts/acme/models/m", "deployment": NAME}
    other = {**mine, "name": "accounts/acme/deployedModels/m-2", "deployment": f"{NAME}2"}
    unrelated = {**mine, "name": "accounts/acme/deployedModels/x", "model": "accounts/acme/models/x"}
    api.on(
        "GET", f"{HOME}/deployedModels", {"deployedModels": [deployed("DEPLOYED", **mine), other, unrelated]}
    )
    api.on("DELETE", f"{HOME}/deployedModels/m-1", {})

    ambiguous = firectl("undeploy", "m")
    assert ambiguous.code == 1
    assert "--deployment-id d2" in ambiguous.err

    assert firectl("unload-lora", "m", "--deployment", "d", "--wait").code == 0
    assert len(api.sent("DELETE", f"{HOME}/deployedModels/m-1")) == 1

    assert firectl("model", "undeploy", "m-1").code == 0  # the deployed model itself may be named too
    assert len(api.sent("DELETE", f"{HOME}/deployedModels/m-1")) == 2

    assert firectl("undeploy", "model", "m-1").code == 0  # and the noun may stand there
    assert "is not deployed" in firectl("undeploy", "y").err
    assert firectl("undeploy", "m", "n").code == 2


def test_a_deployed_model_is_made_the_default(firectl, api):
    api.on("PATCH", f"{HOME}/deployedModels/m-1", deployed("DEPLOYED", default=True))
    assert firectl("update", "deployed-model", "m-1", "--default").code == 0
    assert api.sent("PATCH")[0].body == {"default": True}


def test_a_dry_run_prints_the_request_and_sends_none(firectl, api):
    shown = json.loads(firectl("--dry-run", "deploy", "m", "--deployment", "d", "--wait").out)
    assert shown["method"] == "POST"
    assert shown["url"] == f"{api.url}/v1/accounts/acme/deployedModels"
    assert shown["body"]["deployment"] == NAME
    assert api.requests == []


def test_the_older_name_of_the_accelerator_count_means_the_same(firectl, api):
    api.on("PATCH", PATH, deployment("UPDATING"))
    assert firectl("update", "deployment", "d", "--world-size", "2").code == 0
    (sent,) = api.sent("PATCH")
    assert (sent.body, sent.query) == ({"acceleratorCount": 2}, {"updateMask": "accelerator_count"})

    ran = firectl("update", "deployment", "d", "--world-size", "2", "--accelerator-count", "4")
    assert ran.code == 2
    assert "contradicts --accelerator-count 4" in ran.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cluster-id", "byoc"], "--cluster-id is not supported: replicas run on the platform's own"),
        (["-c", "byoc"], "--cluster-id is not supported"),
        (["--unused-auto-delete-duration", "168h"], "HEARTH_UNUSED_DEPLOYMENT_DAYS says it for all"),
        (["--unused-auto-delete-duration", "0"], "HEARTH_UNUSED_DEPLOYMENT_DAYS says it for all"),
    ],
)
def test_what_could_not_be_kept_is_refused_by_name_and_nothing_is_sent(firectl, api, flags, said):
    ran = firectl("create", "deployment", "m", *flags)
    assert ran.code == 1
    assert said in ran.err
    assert api.requests == []


def test_asking_for_nothing_is_no_reason_to_refuse(firectl, api):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    assert firectl("create", "deployment", "m", "--unused-auto-delete-duration", "0s").code == 0
    assert api.sent("POST")[0].body == {"baseModel": "m"}


def test_long_prompts_are_switched_off_by_name(firectl, api):
    api.on("PATCH", PATH, deployment("UPDATING"))
    assert firectl("update", "deployment", "d", "--long-prompt=false").code == 0
    (sent,) = api.sent("PATCH")
    assert sent.body == {"autoTune": {"longPrompt": False}}
    assert sent.query == {"updateMask": "auto_tune.long_prompt"}


def test_a_region_is_given_once(firectl, api):
    ran = firectl("update", "deployment", "d", "--region", "US_IOWA_1")
    assert (ran.code, api.requests) == (1, [])
    assert "a deployment stays where it is" in ran.err


def test_a_value_that_is_nearly_right_is_answered_with_the_right_ones(firectl, api):
    refusal = api.refusal(400, 3, "'NVIDIA_H100' is none of X_UNSPECIFIED, NVIDIA_H100_80GB, L4")
    api.on("POST", f"{HOME}/deployments", refusal)
    ran = firectl("create", "deployment", "m", "--accelerator-type", "h100")
    assert ran.code == 1
    assert "did you mean NVIDIA_H100_80GB?" in ran.err


def test_only_checking_a_request_creates_and_waits_for_nothing(firectl, api):
    api.on("POST", f"{HOME}/deployments", deployment("STATE_UNSPECIFIED"))
    ran = firectl("create", "deployment", "m", "--validate-only", "--wait")
    assert ran.code == 0
    assert api.sent("POST")[0].query == {"validateOnly": "true"}
    assert "nothing was created" in ran.err
    assert api.sent("GET") == []


def test_a_model_can_be_deployed_with_the_deployment(firectl, api):
    base = {**deployment("CREATING"), "baseModel": "accounts/acme/models/base"}
    api.on("POST", f"{HOME}/deployments", base)
    api.on("POST", f"{HOME}/deployedModels", deployed("DEPLOYING"))

    assert firectl("create", "deployment", "base", "--enable-addons", "--model-id", "tuned").code == 0
    body = {"model": "accounts/acme/models/tuned", "deployment": NAME}
    assert api.sent("POST", f"{HOME}/deployedModels")[0].body == body

    assert firectl("create", "deployment", "base", "--model-id", "base").code == 0
    assert len(api.sent("POST", f"{HOME}/deployedModels")) == 1  # the base model is there anyway


def test_a_model_that_does_not_fit_leaves_the_deployment_and_says_so(firectl, api):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    api.on("POST", f"{HOME}/deployedModels", api.refusal(400, 9, "it takes no addons"))
    ran = firectl("create", "deployment", "base", "--model-id", "tuned", "--wait")
    assert ran.code == 1
    assert f"{NAME} was created, without accounts/acme/models/tuned" in ran.err
    assert "firectl deploy tuned --deployment-id d" in ran.err


def test_a_file_that_is_no_deployment_is_told_with_the_line(firectl, api, tmp_path):
    path = tmp_path / "deployment.yaml"
    path.write_text("base_model: m\n  min_replica_count: 1\n")
    ran = firectl("create", "deployment", "--file", str(path))
    assert (ran.code, api.requests) == (1, [])
    assert f"{path}, line 2: a colon where none can be" in ran.err


def test_the_words_of_a_map_in_a_file_stay_as_they_are(firectl, api, tmp_path):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps({
        "base_model": "m",
        "annotations": {"made_by": "ci"},
        "autoscaling_policy": {"load_targets": {"requests_per_second": 2}},
    }))  # fmt: skip
    assert firectl("create", "deployment", "--file", str(path)).code == 0
    assert api.sent("POST")[0].body == {
        "baseModel": "m",
        "annotations": {"made_by": "ci"},
        "autoscalingPolicy": {"loadTargets": {"requests_per_second": 2}},
    }


def test_deleting_says_how_to_take_it_back(firectl, api):
    api.on("DELETE", PATH, {})
    assert "firectl undelete deployment d" in firectl("delete", "deployment", "d").err
    gone = firectl("delete", "deployment", "d", "--hard", "-o", "json")
    assert (gone.json, "undelete" in gone.err) == ({}, False)


def test_an_adapter_is_answered_with_the_way_to_serve_it(firectl, api):
    api.on("POST", f"{HOME}/deployments", api.refusal(400, 9, "accounts/acme/models/tuned is an addon"))
    api.on("GET", f"{HOME}/models/tuned", {"peftDetails": {"baseModel": "accounts/acme/models/base"}})
    ran = firectl("create", "deployment", "tuned")
    assert ran.code == 1
    assert "firectl create deployment accounts/acme/models/base --enable-addons --model-id tuned" in ran.err


def test_what_stands_in_the_way_of_deleting_can_be_passed_over(firectl, api):
    api.on("DELETE", PATH, api.refusal(400, 9, "it is in use; set ignoreChecks"))
    ran = firectl("delete", "deployment", "d")
    assert ran.code == 1
    assert "firectl delete deployment d --ignore-checks" in ran.err
