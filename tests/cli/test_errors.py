"""Failures: the cause on stderr, then the next command; exit 1; never a traceback."""

import socket

import pytest

HOME = "/v1/accounts/acme"


def test_without_a_server_the_address_and_the_way_to_start_one_are_named(firectl):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        ran = firectl("list", "models", "--base-url", address)
    assert (ran.code, ran.out) == (1, "")
    assert address in ran.err
    assert "hearth up" in ran.err
    assert "FIREWORKS_BASE_URL" in ran.err


@pytest.mark.parametrize("address", ["localhost", "ftp://host", "http://"])
def test_an_address_that_is_none_is_told(firectl, address):
    ran = firectl("list", "models", "--base-url", address)
    assert ran.code == 1
    assert "FIREWORKS_BASE_URL" in ran.err


def test_a_refused_key_says_how_to_set_one(firectl, api):
    api.on("GET", f"{HOME}/models", api.refusal(401, 16, "the API key is not valid"))
    ran = firectl("list", "models")
    assert ran.code == 1
    assert "Error: the API key is not valid" in ran.err
    assert "firectl set-api-key" in ran.err


def test_without_a_key_the_places_to_put_one_are_named(firectl, api):
    api.on("GET", f"{HOME}/models", api.refusal(401, 16, "no API key"))
    ran = firectl("list", "models", env={"FIREWORKS_API_KEY": None})
    assert "authorization" not in api.requests[0].headers
    assert "FIREWORKS_API_KEY" in ran.err


def test_a_missing_resource_names_near_ones_and_the_list_command(firectl, api):
    api.on("GET", f"{HOME}/models", {"models": [{"name": "accounts/acme/models/my-llama"}]})
    ran = firectl("get", "model", "my-lama")
    assert ran.code == 1
    assert "did you mean my-llama?" in ran.err
    assert "firectl list models" in ran.err


def test_a_missing_model_of_a_deployment_is_looked_for_among_the_models(firectl, api):
    api.on("POST", f"{HOME}/deployments", api.refusal(404, 5, "accounts/acme/models/my-lama not found"))
    api.on("GET", f"{HOME}/models", {"models": [{"name": "accounts/acme/models/my-llama"}]})
    assert "did you mean my-llama?" in firectl("create", "deployment", "my-lama").err


def test_the_near_names_of_a_server_that_fails_again_are_left_out(firectl, api):
    ran = firectl("get", "deployment", "d")
    assert ran.code == 1
    assert "firectl list deployments" in ran.err


def test_a_bad_request_shows_its_field_violations(firectl, api):
    violation = {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": "maxReplicaCount", "description": "must be at least minReplicaCount"}],
    }
    api.on("POST", f"{HOME}/deployments", api.refusal(400, 3, "the deployment is not valid", violation))
    ran = firectl("create", "deployment", "m", "--max-replica-count", "1")
    assert ran.err.splitlines()[:2] == [
        "Error: the deployment is not valid",
        "  maxReplicaCount: must be at least minReplicaCount",
    ]


def test_an_error_in_the_openai_form_is_understood(firectl, api):
    api.on("GET", f"{HOME}/models", api.raw(403, b'{"error": {"message": "not for you"}}'))
    assert "Error: not for you" in firectl("list", "models").err


def test_an_answer_that_is_not_json_points_at_the_address(firectl, api):
    api.on("GET", f"{HOME}/models", api.raw(200, b"<html>a web site</html>"))
    ran = firectl("list", "models")
    assert ran.code == 1
    assert "FIREWORKS_BASE_URL" in ran.err


def test_a_read_outlives_a_short_outage_and_a_busy_server(firectl, api):
    busy = api.refusal(429, 8, "slow down", retry_after="0")
    api.on("GET", f"{HOME}/models", api.raw(503, b"starting"), busy, {"models": []})
    assert firectl("list", "models").code == 0
    assert len(api.requests) == 3


def test_a_create_is_not_sent_twice_after_a_failure(firectl, api):
    api.on("POST", f"{HOME}/deployments", api.refusal(503, 14, "database is away"))
    ran = firectl("create", "deployment", "m")
    assert ran.code == 1
    assert "database is away" in ran.err
    assert len(api.sent("POST")) == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["create", "deplyment"], "Did you mean 'deployment'?"),
        (["create", "deployment", "m", "--min-replicas", "1"], "--min-replicas"),
        (["create", "deployment", "m", "--min-replica-count", "many"], "--min-replica-count"),
        (["get", "model"], "ID"),
        (["create", "deployment"], "which model?"),
        (["update", "model", "m"], "nothing to change"),
        (["create", "deployment", "m", "--scale-up-window", "10"], "10m"),
        (["list", "models", "-o", "yaml"], "yaml"),
    ],
)
def test_a_mistyped_command_exits_1_and_names_the_way_on(firectl, api, argv, said):
    ran = firectl(*argv)
    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err
    assert ran.err.startswith("Error: ")
    assert api.sent("POST") == []


@pytest.mark.parametrize(
    "given",
    ["", "a/b", "..", "x?y", "accounts/acme/datasets/d", "accounts//models/m", "accounts/a/models/.."],
)
def test_what_is_no_model_name_never_becomes_a_path(firectl, api, given):
    ran = firectl("delete", "model", given)
    assert (ran.code, api.requests) == (1, [])


def test_the_error_text_of_a_server_cannot_move_the_cursor(firectl, api):
    api.on("GET", f"{HOME}/models", api.refusal(400, 3, "bad \x1b[31mfilter"))
    assert "\x1b" not in firectl("list", "models").err


def test_debug_shows_requests_and_never_the_key(firectl, api):
    api.on("GET", f"{HOME}/models", {"models": []})
    ran = firectl("list", "models", "--debug")
    assert f"GET {api.url}{HOME}/models" in ran.err
    assert "fw_test" not in ran.err
