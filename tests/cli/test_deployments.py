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
        *("--long-prompt=false", "--region", "US_IOWA_1", "--disable-speculative-decoding"),
    )
    (sent,) = api.sent("POST")
    assert sent.query == {"deploymentId": "d", "disableSpeculativeDecoding": "true"}
    assert sent.body == {
        "baseModel": "accounts/fireworks/models/llama",
        "enableAddons": True,
        "minReplicaCount": 0,
        "maxReplicaCount": 2,
        "acceleratorType": "NVIDIA_H100_80GB",
        "autoscalingPolicy": {
            "scaleDownWindow": "300s",
            "loadTargets": {"default": 0.8, "requests_per_second": 2},
        },
        "autoTune": {"longPrompt": False},
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
    ran = firectl("create", "deployment", "m", "--wait")
    assert (ran.code, ran.out) == (1, "")
    assert "Error: the deployment failed: out of GPU memory" in ran.err


def test_a_wait_that_takes_too_long_says_how_to_go_on(firectl, api):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    api.on("GET", PATH, deployment("CREATING", "no node fits"))
    ran = firectl("create", "deployment", "m", "--wait", "--wait-timeout", "50ms")
    assert ran.code == 1
    assert "was not ready after 0s" in ran.err
    assert "no node fits" in ran.err
    assert "firectl get deployment d" in ran.err
    assert "firectl delete deployment d" in ran.err


def test_ctrl_c_leaves_the_deployment_and_says_so(api, home):
    api.on("POST", f"{HOME}/deployments", deployment("CREATING"))
    api.on("GET", PATH, deployment("CREATING", "loading"))
    program = "from cli.main import main; main()"
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
    ran = firectl("deploy", "m")
    assert "serverless is not available" in ran.err
    assert api.sent("POST")[0].body == {"model": "accounts/acme/models/m"}


def test_an_adapter_that_does_not_load_is_told(firectl, api):
    api.on("POST", f"{HOME}/deployedModels", deployed("DEPLOYING"))
    bad = deployed("DEPLOYING", "rank 128 is above the deployment's 64", "FAILED_PRECONDITION")
    api.on("GET", f"{HOME}/deployedModels/m-1", deployed("DEPLOYING", "no replica is up", "UNAVAILABLE"), bad)
    ran = firectl("deploy", "m", "--deployment-id", "d", "--wait")
    assert ran.code == 1
    assert "the model was not deployed: rank 128 is above" in ran.err


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

    assert "is not deployed" in firectl("undeploy", "y").err


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
