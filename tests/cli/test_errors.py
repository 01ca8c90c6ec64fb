"""Failures: the cause on stderr, then the next command; never a traceback."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import cli
from tests.cli.conftest import Answer

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


@pytest.mark.parametrize("address", ["localhost", "ftp://host", "http://", "http://[::1"])
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


def test_a_proxy_whose_server_is_away_is_no_wrong_address(firectl, api):
    api.on("GET", f"{HOME}/models", api.raw(502, b"<html>Bad Gateway</html>"))
    ran = firectl("list", "models")
    assert ran.code == 1
    assert ran.err.startswith("Error: the server answered 502\nNext: try again")


def test_a_wait_outlives_the_error_page_of_a_proxy(firectl, api):
    deployment = {"name": "accounts/acme/deployments/d"}
    page = [api.raw(502, b"<html>Bad Gateway</html>")] * 4  # more than one request tries
    api.on("POST", f"{HOME}/deployments", {**deployment, "state": "CREATING"})
    api.on("GET", f"{HOME}/deployments/d", *page, {**deployment, "state": "READY"})
    ran = firectl("create", "deployment", "m", "--wait")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b'{"error": "no such tenant"}', {}, "Error: no such tenant"),
        (b'{"message": null, "details": "x"}', {}, "Error: the server answered 400\n"),
        (b"[" * 100_000, {}, "is not JSON"),
        (b"not squeezed", {"Content-Encoding": "gzip"}, "cannot reach"),
    ],
)
def test_whatever_a_server_answers_is_told_in_a_line(firectl, api, body, headers, said):
    api.on("GET", f"{HOME}/models", Answer(400, body, headers))
    ran = firectl("list", "models")
    assert ran.code == 1
    assert said in ran.err


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
        (["lst", "models"], 'unknown command "lst models"; did you mean "list models"?'),
        (["list", "modles"], 'unknown command "list modles"; did you mean "list models"?'),
        (["modle", "get", "m"], 'unknown command "modle get"; did you mean "get model"?'),
        (["create", "deplyment"], 'did you mean "create deployment"?'),
        (["whoam"], 'unknown command "whoam"; did you mean "whoami"?'),
        (["deplooy", "m"], 'did you mean "deploy"?'),
        (["create", "idp"], 'unknown command "create idp"\nNext: firectl create --help'),
        (["list-models"], 'unknown command "list-models"; did you mean "list models"?'),
        (["create_model", "m"], 'did you mean "create model"?'),
        (["frobnicate"], "firectl --help lists all commands"),
        (["frobnicate", "--with", "x"], 'unknown command "frobnicate x"'),
        (["scale", "model", "m"], "scale is for: deployment"),
        (["model", "scale", "m"], "model has: create, "),
        (["create", "deployment", "m", "--min-replicas", "1"], "did you mean --min-replica-count"),
        (["create", "deployment", "m", "--min-replicas=1"], "unknown flag: --min-replicas;"),
        (["list", "models", "-id"], "unknown shorthand flag: 'i' in -id"),
        (
            ["list", "models", "-filter", "x"],
            "unknown shorthand flag: 'f' in -filter; did you mean --filter?",
        ),
        (["list", "models", "--filter"], "flag needs an argument: --filter"),
        (["list", "models", "-o"], "flag needs an argument: -o"),
        (["list", "models", "extra"], 'unexpected "extra": firectl list models takes no arguments'),
        (["get", "model", "m", "--debug", "true"], "a switch takes its value after ="),
        (["create", "deployment", "m", "--min-replica-count", "many"], '"many" is not a whole number'),
        (["get", "model"], "ID is missing: "),
        (["get", "model"], "Next: for example: firectl get model "),
        (["scale", "deployment", "d", "--replica-count", "-1"], "-1 is less than 0"),
        (["scale", "deployment", "d", "--replica-count", "1.5"], '"1.5" is not a whole number'),
        (["chat", "m", "--temperature", "hot"], '"hot" is not a number'),
        (["chat", "m", "--temperature", "nan"], '"nan" is not a number'),
        (["create", "deployment", "m", "--load-targets", "default=inf"], '"inf" is not a number'),
        (["create", "user", "--role", "amdin"], "did you mean admin?"),
        (["help", "modle"], 'no command and no topic "modle"; did you mean model?'),
        (["update", "model", "m", "--public=maybe"], "invalid value for --public: it is true or false"),
        (["update", "model", "m", "--public=maybe"], "Next: firectl update model --help"),
        (["create", "deployment", "m", "--wait", "--wait-timeout", "soon"], "for --wait-timeout: "),
        (["deploy", "m", "--wait-timeout", "5"], '"5" is not a duration'),
        (["list", "models", "-a", "my account"], '"my account" is not an id'),
        (["create", "deployment", "m", "--scale-up-window", "10"], "10m"),
        (["list", "models", "-o", "yml"], "did you mean yaml?"),
        (["list", "models", "-o", "xml"], '"xml" is not one of text, json, yaml'),
    ],
)
def test_a_mistyped_command_line_sends_nothing_and_names_the_way_on(firectl, api, argv, said):
    ran = firectl(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.startswith("Error: ")
    assert "Next: " in ran.err
    assert api.requests == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [(["create", "deployment"], "which model?"), (["update", "model", "m"], "nothing to change")],
)
def test_a_command_that_says_too_little_names_what_is_missing(firectl, api, argv, said):
    ran = firectl(*argv)
    assert ran.code == 2
    assert said in ran.err
    assert api.sent("POST") == []


@pytest.mark.parametrize(
    "given",
    ["", "a/b", "..", "x?y", "accounts/acme/datasets/d", "accounts//models/m", "accounts/a/models/.."],
)
def test_what_is_no_model_name_never_becomes_a_path(firectl, api, given):
    ran = firectl("delete", "model", given)
    assert (ran.code, api.requests) == (2, [])


def test_the_error_text_of_a_server_cannot_move_the_cursor(firectl, api):
    api.on("GET", f"{HOME}/models", api.refusal(400, 3, "bad \x1b[31mfilter"))
    assert "\x1b" not in firectl("list", "models").err


def test_debug_shows_requests_and_never_the_key(firectl, api):
    api.on("GET", f"{HOME}/models", {"models": []})
    ran = firectl("list", "models", "--debug")
    assert f"GET {api.url}{HOME}/models" in ran.err
    assert "fw_test" not in ran.err


@pytest.fixture
def program(tmp_path, api):
    """Runs firectl as a program of its own."""
    settings = {
        "HOME": str(tmp_path),
        "FIREWORKS_BASE_URL": api.url,
        "FIREWORKS_API_KEY": "fw_test",
        "FIREWORKS_ACCOUNT_ID": "acme",
    }

    def start(*argv, **options):
        return subprocess.Popen(
            [sys.executable, "-c", "from cli.main import main; main()", *argv],
            env={**os.environ, **settings},
            cwd=Path(cli.__file__).parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    return start


def test_a_reader_that_goes_away_is_no_failure_to_tell(program, api):
    gone = threading.Event()

    def answer(_request):
        gone.wait(30)
        return api.ok({"models": [{"name": "accounts/acme/models/m"}]})

    api.on("GET", f"{HOME}/models", answer)
    with program("list", "models") as running:
        running.stdout.close()
        gone.set()
        assert running.stderr.read() == b""
    assert running.returncode == 141


@pytest.mark.parametrize("argv", [["--help"], ["model"], ["get", "model", "--help"], ["help"]])
def test_help_that_nobody_reads_is_no_failure_to_tell(argv):
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", *argv],
        cwd=Path(cli.__file__).parents[1],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_a_closed_stdin_holds_nothing():
    firectl = f"{sys.executable} -c 'from cli.main import main; main()' create secret TOKEN -a acme"
    ran = subprocess.run(
        ["bash", "-c", f"{firectl} <&-"],
        cwd=Path(cli.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (1, "Error: the value is empty\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_reason_to_fail(closed):
    firectl = f"{sys.executable} -c 'from cli.main import main; main()' --help"
    ran = subprocess.run(
        ["bash", "-c", f"{firectl} {closed}"],
        cwd=Path(cli.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ("Usage:" in ran.stdout) == (closed == "2>&-")


def test_a_full_disk_is_told_in_a_line():
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-c", "from cli.main import main; main()", "--help"],
            cwd=Path(cli.__file__).parents[1],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (1, "Error: No space left on device\n")


def test_ctrl_c_is_told_in_a_word_and_exits_130(program, api):
    asked, answered = threading.Event(), threading.Event()

    def answer(_request):
        asked.set()
        answered.wait(30)
        return api.ok({"models": []})

    api.on("GET", f"{HOME}/models", answer)
    with program("list", "models") as running:
        assert asked.wait(30)
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == b"Error: stopped\n"
        answered.set()
    assert running.returncode == 130


def test_ctrl_c_while_firectl_is_being_imported_is_no_traceback(tmp_path):
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ran = subprocess.run(
        [sys.executable, "-m", "cli", "version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=Path(cli.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (130, "Error: stopped\n")


@pytest.mark.parametrize(("flags", "traceback"), [((), False), (("--debug",), True)])
def test_only_debug_shows_where_an_unexpected_failure_comes_from(program, api, flags, traceback):
    api.on("GET", f"{HOME}/models", {"models": [["no resource at all"]]})
    with program("list", "models", *flags) as running:
        told = running.stderr.read().decode()
    assert running.returncode == 1
    assert ("Traceback" in told) == traceback
    assert traceback or told.startswith("Error: firectl failed: ")
    assert traceback or "--debug" in told
