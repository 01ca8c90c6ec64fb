"""How command lines are read: word orders, aliases, global flags anywhere, Go switches and durations."""

import pytest

from cli.errors import CliError
from cli.language.argv import GLOBAL
from cli.language.options import Flag, Kind, converted, proto_duration
from cli.language.registry import all_commands, option_names, understood

HOME = "/v1/accounts/acme"


@pytest.mark.parametrize(
    "argv",
    [
        ["create", "deployment", "m", "--deployment-id", "d", "--min-replica-count", "2"],
        ["deployment", "create", "m", "--deployment-id", "d", "--min-replica-count", "2"],
        ["deployments", "create", "--deployment=d", "m", "--min-replica-count=2"],
        ["create", "--min-replica-count", "2", "deployment", "--deployment-id", "d", "m"],
        [
            "-a",
            "acme",
            "create",
            "-o",
            "json",
            "deployment",
            "--deployment-id",
            "d",
            "m",
            "--min-replica-count=2",
        ],
        [
            "create",
            "deployment",
            "m",
            "--deployment-id",
            "d",
            "--min-replica-count",
            "2",
            "-ojson",
            "--dry-run=false",
        ],
    ],
)
def test_every_order_of_words_and_flags_sends_the_same_request(firectl, api, argv):
    api.on("POST", f"{HOME}/deployments", {"name": "accounts/acme/deployments/d", "state": "READY"})

    assert firectl(*argv).code == 0

    (sent,) = api.sent("POST")
    assert sent.query == {"deploymentId": "d"}
    assert sent.body == {"baseModel": "m", "minReplicaCount": 2}


@pytest.mark.parametrize(
    "argv", [["list", "models"], ["list", "model"], ["ls", "models"], ["model", "ls"], ["models", "list"]]
)
def test_lists_take_the_noun_in_singular_and_plural(firectl, api, argv):
    api.on("GET", f"{HOME}/models", {"models": []})
    assert firectl(*argv).code == 0


@pytest.mark.parametrize("argv", [["delete", "model", "m"], ["rm", "models", "m"], ["model", "remove", "m"]])
def test_delete_has_short_names(firectl, api, argv):
    api.on("DELETE", f"{HOME}/models/m", {})
    assert firectl(*argv).code == 0
    assert len(api.sent("DELETE")) == 1


@pytest.mark.parametrize(
    ("words", "collection"),
    [
        ("ls ftjs", "fineTuningJobs"),
        ("ftj ls", "fineTuningJobs"),
        ("list sftj", "supervisedFineTuningJobs"),
        ("supervised-fine-tuning-jobs list", "supervisedFineTuningJobs"),
        ("ls ds", "deploymentShapes"),
        ("ds list", "deploymentShapes"),
    ],
)
def test_nouns_have_short_names(firectl, api, words, collection):
    api.on("GET", f"{HOME}/{collection}", {collection: []})
    ran = firectl(*words.split())
    assert (ran.code, api.requests[0].path) == (0, f"{HOME}/{collection}")


@pytest.mark.parametrize("flag", ["-s", "--server", "--base-url"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_server_is_named_by_its_address_or_by_host_and_port(firectl, api, flag, scheme):
    api.on("GET", f"{HOME}/models", {"models": []})
    address = scheme + api.url.removeprefix("http://")
    env = {"FIREWORKS_BASE_URL": "http://127.0.0.1:9"}
    assert firectl("list", "models", flag, address, env=env).code == 0


@pytest.mark.parametrize(
    "flags", [["--dry-run=false"], ["--no-dry-run"], ["--dry-run", "--no-dry-run"], ["--no-dry-run=true"]]
)
def test_a_global_switch_is_turned_off_anywhere(firectl, api, flags):
    api.on("DELETE", f"{HOME}/models/m", {})
    assert firectl("delete", *flags, "model", "m").code == 0
    assert len(api.sent("DELETE")) == 1


@pytest.mark.parametrize(("flag", "pages"), [("--no-paginate", 2), ("--no-paginate=false", 1)])
def test_a_switch_that_says_no_is_turned_around_too(firectl, api, flag, pages):
    one = [{"name": "accounts/acme/models/m"}]
    api.on("GET", f"{HOME}/models", {"models": one, "nextPageToken": "t"}, {"models": one})
    assert firectl("list", "models", "--page-size", "1", flag).code == 0
    assert len(api.requests) == pages


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_quiet_stands_anywhere_and_leaves_results_and_errors(firectl, api, place):
    api.on("GET", f"{HOME}/models", {"models": []})
    api.on("DELETE", f"{HOME}/models/m", {})
    words = ["delete", "model", "m"]
    ran = firectl(*words[:place], "--quiet", *words[place:])
    assert (ran.code, ran.err) == (0, "")
    assert firectl("get", "model", "--quiet", "none").err.startswith("Error: ")


@pytest.mark.parametrize("format", ["text", "json", "yaml", "JSON"])
def test_the_format_is_one_of_three(firectl, api, format):
    api.on("GET", f"{HOME}/models/m", {"name": "accounts/acme/models/m"})
    assert firectl("get", "model", "m", "-o", format).code == 0


def test_a_flag_may_know_its_choices():
    role = Flag("role", "role", "", choices=("admin", "user"))
    assert converted(role, "ADMIN") == "admin"
    with pytest.raises(CliError, match=r"--role: .* not one of admin, user; did you mean admin\?"):
        converted(role, "amdin")


@pytest.mark.parametrize(
    ("switch", "sent_as"),
    [
        ("--public", True),
        ("--public=true", True),
        ("--public=1", True),
        ("--public=false", False),
        ("--public=F", False),
        ("--no-public", False),
    ],
)
def test_switches_take_values_the_go_way(firectl, api, switch, sent_as):
    api.on("PATCH", f"{HOME}/models/m", {"name": "accounts/acme/models/m"})
    assert firectl("update", "model", switch, "m").code == 0
    (sent,) = api.sent("PATCH")
    assert sent.body == {"public": sent_as}
    assert sent.query == {"updateMask": "public"}


def test_a_switch_with_another_value_is_a_mistake(firectl):
    ran = firectl("update", "model", "m", "--public=maybe")
    assert ran.code == 2
    assert "--public" in ran.err


def test_a_value_that_looks_like_a_flag_or_a_noun_stays_a_value(firectl, api):
    api.on("PATCH", f"{HOME}/models/m", {"name": "accounts/acme/models/m"})
    assert (
        firectl("update", "model", "--description", "-o is a flag", "m", "--display-name", "model").code == 0
    )
    assert api.sent("PATCH")[0].body == {"description": "-o is a flag", "displayName": "model"}


def test_a_model_may_be_called_like_a_noun(firectl, api):
    api.on("POST", f"{HOME}/deployedModels", {"name": "accounts/acme/deployedModels/x", "state": "DEPLOYING"})
    assert firectl("deploy", "deployment").code == 0
    assert api.sent("POST")[0].body == {"model": "accounts/acme/models/deployment"}


def test_words_after_two_dashes_are_never_flags():
    assert understood(["get", "model", "--", "-o"]).canonical == ["get", "model", "--", "-o"]


def test_an_option_may_be_a_switch_in_one_command_and_take_a_value_in_another(firectl, api):
    api.on("POST", f"{HOME}/users", {"name": "accounts/acme/users/robot"})
    api.on("POST", f"{HOME}/users/robot/apiKeys", {"name": "accounts/acme/users/robot/apiKeys/k"})

    assert firectl("create", "user", "--service-account", "--user-id", "robot").code == 0
    assert firectl("create", "api-key", "--service-account", "robot").code == 0

    assert [sent.path for sent in api.sent("POST")] == [f"{HOME}/users", f"{HOME}/users/robot/apiKeys"]


def test_no_command_takes_a_name_that_is_global():
    own = {name for command in all_commands() for name, _switch in option_names(command)}
    assert own & (GLOBAL.values | GLOBAL.switches) == set()


@pytest.mark.parametrize("command", all_commands(), ids=lambda c: f"{c.verb}-{c.noun}")
def test_every_command_has_help_in_both_orders(firectl, command):
    orders = [[command.verb]] if not command.noun else [[command.noun, command.verb]]
    if command.noun:
        orders.append([command.verb] if command.alone else [command.verb, command.noun])
    for order in orders:
        ran = firectl(*order, "-h")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith("Usage: firectl")


@pytest.mark.parametrize("flags", [[], ["-o", "json"], ["--quiet"]])
def test_no_command_shows_the_help_whatever_the_flags(firectl, flags):
    ran = firectl(*flags)
    assert (ran.code, "Usage:" in ran.out, ran.err) == (0, True, "")


def test_the_version_may_be_asked_for_as_a_flag(firectl):
    asked = firectl("--version")
    assert (asked.code, asked.out) == (0, firectl("version").out)


def test_no_words_at_all_shows_the_help(firectl):
    ran = firectl()
    assert ran.code == 0
    assert "whoami" in ran.out


@pytest.mark.parametrize(
    ("go", "proto"),
    [
        ("10m", "600s"),
        ("1h30m", "5400s"),
        ("168h0m0s", "604800s"),
        ("0", "0s"),
        ("0s", "0s"),
        ("1.5h", "5400s"),
        ("250ms", "0.25s"),
        ("600s", "600s"),
        (".5m", "30s"),
    ],
)
def test_go_durations_become_proto_durations(go, proto):
    assert proto_duration(go) == proto


@pytest.mark.parametrize("bad", ["10", "m", "1h 30m", "-5m", "ten minutes", "", "1d"])
def test_what_is_no_go_duration_is_told(bad):
    with pytest.raises(CliError, match="--scale-up-window"):
        converted(Flag("scale-up-window", "x", "", Kind.DURATION), bad)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("NVIDIA_H100_80GB", "NVIDIA_H100_80GB"),
        ("H100_80GB", "NVIDIA_H100_80GB"),
        ("MI300X_192GB", "AMD_MI300X_192GB"),
        ("a100-80gb", "NVIDIA_A100_80GB"),
    ],
)
def test_accelerator_types_may_lack_the_vendor(given, sent):
    assert converted(Flag("accelerator-type", "x", "", Kind.ACCELERATOR), given) == sent
