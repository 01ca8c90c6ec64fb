"""What the commands about people, keys, secrets, limits and money send, and what they never show."""

import fcntl
import io
import json
import os
import pty
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta

import pytest

from cli.errors import UsageError
from cli.language import moments
from cli.language.refused_commands import REFUSED
from cli.show.money import dollars

HOME = "/v1/accounts/acme"
WHERE = {"x-fireworks-account-id": "acme", "x-fireworks-user-id": "ada"}


def knows_who_asks(api):
    answer = api.ok({})
    answer.headers.update(WHERE)
    api.on("GET", "/verifyApiKey", answer)


def test_a_user_is_sent_with_every_flag(firectl, api):
    api.on("POST", f"{HOME}/users", {"name": "accounts/acme/users/bot"})
    flags = ["--service-account", "--user-id", "bot", "--role=contributor", "--display-name=Bot"]
    assert firectl("user", "create", *flags).code == 0
    (sent,) = api.sent("POST")
    assert sent.query == {"userId": "bot"}
    assert sent.body == {"serviceAccount": True, "role": "contributor", "displayName": "Bot"}


@pytest.mark.parametrize("flag", ["--role", "--user"])
def test_the_role_has_two_names_when_it_is_changed(firectl, api, flag):
    api.on("PATCH", f"{HOME}/users/ada", {"name": "accounts/acme/users/ada"})
    assert firectl("update", "user", "ada", flag, "admin").code == 0
    (sent,) = api.sent("PATCH")
    assert (sent.query, sent.body) == ({"updateMask": "role"}, {"role": "admin"})


def test_a_balance_is_shown_as_money(firectl, api):
    balance = {"currencyCode": "USD", "units": "10003", "nanos": 390_000_000}
    api.on("GET", HOME, {"name": "accounts/acme", "balance": balance})
    assert "Balance: USD 10003.39\n" in firectl("account", "get").out
    assert firectl("account", "get", "-o", "json").json["balance"]["units"] == "10003"


def test_a_key_is_made_for_a_service_account_and_for_a_time(firectl, api):
    api.on("POST", f"{HOME}/users/ci-bot/apiKeys", {"keyId": "k1", "key": "fw_secret"})
    ran = firectl("create", "api-key", "--service-account", "ci-bot", "--expire-time", "2031-12-31 23:59:59")
    assert api.sent("POST")[0].body == {
        "apiKey": {"displayName": "default", "expireTime": "2031-12-31T23:59:59Z"}
    }
    assert "Key: fw_secret\n" in ran.out and "fw_secret" not in ran.err


def test_a_key_is_made_with_limits_of_its_own(firectl, api):
    api.on("POST", f"{HOME}/apiKeys", {"keyId": "k1", "key": "fw_secret", "requestsPerMinute": 60})
    limits = ("--requests-per-minute", "60", "--tokens-per-minute", "1000", "--concurrent-requests", "4")
    ran = firectl("create", "api-key", *limits)
    asked = {"requestsPerMinute": 60, "tokensPerMinute": 1000, "concurrentRequests": 4}
    assert api.sent("POST")[0].body == {"apiKey": {"displayName": "default", **asked}}
    assert "Requests Per Minute: 60\n" in ran.out


def test_a_service_account_is_a_switch_for_users_and_a_name_for_keys_in_any_order(firectl, api):
    api.on("POST", f"{HOME}/users/ci-bot/apiKeys", {"keyId": "k1"})
    assert firectl("--service-account", "ci-bot", "api-key", "create").code == 0
    assert firectl("api-key", "--service-account=ci-bot", "create").code == 0
    assert len(api.sent("POST", f"{HOME}/users/ci-bot/apiKeys")) == 2


def test_keys_are_those_of_who_asks_unless_others_are_named(firectl, api):
    knows_who_asks(api)
    for whose in ("users/ada/", "users/bot/", ""):
        api.on("GET", f"{HOME}/{whose}apiKeys", {"apiKeys": [{"keyId": f"of-{whose}"}]})
    assert "of-users/ada/" in firectl("list", "api-keys").out
    assert "of-users/bot/" in firectl("list", "api-keys", "--service-account", "bot").out
    assert firectl("ls", "api-keys", "--all-users", "-o", "json").json == [{"key_id": "of-"}]


def test_keys_are_those_that_the_server_chooses_where_it_does_not_say_who_asks(firectl, api):
    api.on("GET", "/verifyApiKey", {})
    api.on("GET", f"{HOME}/apiKeys", {"apiKeys": [{"keyId": "k1"}]})
    assert firectl("list", "api-keys", "-o", "json").json == [{"key_id": "k1"}]


@pytest.mark.parametrize("given", ["k1", "accounts/acme/users/ada/apiKeys/k1", "accounts/acme/apiKeys/k1"])
def test_a_key_is_deleted_by_its_id_or_its_name(firectl, api, given):
    api.on("POST", f"{HOME}/apiKeys:delete", {})
    assert firectl("rm", "api-key", given).code == 0
    assert api.sent("POST")[0].body == {"keyId": "k1"}


@pytest.mark.parametrize(
    ("name", "id", "key_name"),
    [
        ("MY_SECRET", "my-secret", "MY_SECRET"),
        ("aws-creds", "aws-creds", "aws-creds"),
        ("accounts/acme/secrets/x", "x", "x"),
    ],
)
def test_a_secret_has_an_id_made_of_its_name(firectl, api, name, id, key_name):
    api.on("POST", f"{HOME}/secrets", {"name": f"accounts/acme/secrets/{id}"})
    assert firectl("secret", "create", "--name", name, "--value", "v").code == 0
    assert api.sent("POST")[0].body == {
        "name": f"accounts/acme/secrets/{id}",
        "keyName": key_name,
        "value": "v",
    }


def test_only_what_is_given_of_a_secret_changes(firectl, api):
    api.on("PATCH", f"{HOME}/secrets/my-secret", {})
    assert firectl("secret", "update", "--id", "MY_SECRET", "--value", "new").code == 0
    assert firectl("secret", "update", "MY_SECRET", "--key-name", "K").code == 0
    assert firectl("secret", "update", "MY_SECRET", "--key-name", "K", "--value", "new").code == 0
    masks = [request.query["updateMask"] for request in api.sent("PATCH")]
    assert masks == ["value", "key_name", "key_name,value"]
    assert api.sent("PATCH")[1].body == {"keyName": "K"}


def test_one_line_break_at_the_end_is_not_part_of_a_value(firectl, api, tmp_path, monkeypatch):
    api.on("POST", f"{HOME}/secrets", {})
    (tmp_path / "pem").write_bytes(b"line 1\nline 2\n\n")
    assert firectl("create", "secret", "s", "--from-file", str(tmp_path / "pem")).code == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"piped\r\n")))
    assert firectl("create", "secret", "s").code == 0
    assert [request.body["value"] for request in api.sent("POST")] == ["line 1\nline 2\n", "piped"]


def test_a_value_that_is_no_text_or_nowhere_is_told(firectl, api, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    ran = firectl("create", "secret", "s", "--from-file", str(tmp_path / "binary"))
    assert ran.code == 1 and "UTF-8" in ran.err
    ran = firectl("create", "secret", "s", "--from-file", str(tmp_path / "missing"))
    assert ran.code == 1 and "missing" in ran.err
    assert api.requests == []


@pytest.mark.parametrize(
    "argv",
    [
        ["create", "secret", "s", "--value", "geheim"],
        ["update", "secret", "s", "--value", "geheim"],
        ["create", "identity-provider", "--display-name=X", "--tenant-domains=x.org", "--oidc-issuer=https://x.org",
         "--oidc-client-id=h", "--oidc-client-secret=geheim"],
        ["update", "identity-provider", "x", "--oidc-client-secret=geheim"],
    ],
)  # fmt: skip
def test_a_dry_run_shows_the_request_without_the_secret(firectl, api, argv):
    ran = firectl(*argv, "--dry-run", "--debug")
    assert (ran.code, api.requests) == (0, [])
    assert "geheim" not in ran.out + ran.err
    assert "(not shown)" in json.dumps(ran.json["body"])


def test_a_dry_run_asks_for_no_secret_and_reads_no_pipe(firectl, api, monkeypatch):
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"stdin.{name}")

    monkeypatch.setattr("sys.stdin", Untouchable())
    assert firectl("create", "secret", "s", "--dry-run").json["body"]["value"] == "(not shown)"


@pytest.mark.parametrize("verb", ["create", "update"])
def test_a_value_at_the_wrong_place_is_not_repeated(firectl, api, verb):
    ran = firectl(verb, "secret", "TOKEN", "geheim", "more")
    assert (ran.code, api.requests) == (2, [])
    assert "geheim" not in ran.err and "--from-file" in ran.err
    assert "Usage: firectl create secret [NAME] [flags]\n" in firectl("create", "secret", "--help").out


def test_a_secret_is_typed_unseen_on_a_terminal(api):
    api.on("POST", f"{HOME}/secrets", {"name": "accounts/acme/secrets/s"})
    ours, theirs = pty.openpty()
    settings = {"FIREWORKS_API_KEY": "fw_test", "FIREWORKS_ACCOUNT_ID": "acme", "FIREWORKS_BASE_URL": api.url}

    def own_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-c", "from cli.main import main; main()", "create", "secret", "s"]
    running = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **settings},
        start_new_session=True, preexec_fn=own_terminal,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while b"Value: " not in shown:  # the space is written when what is typed shows no more
            shown += os.read(ours, 4096)
        os.write(ours, b"geheim\n")
        while chunk := read_on(ours):
            shown += chunk
        assert running.wait(30) == 0
    finally:
        running.kill()
        running.wait()
        os.close(ours)
    assert api.sent("POST")[0].body["value"] == "geheim"
    assert b"geheim" not in shown


def read_on(terminal):
    """What else is written to a terminal; nothing once nobody holds its other end."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


@pytest.mark.parametrize("flag", ["--aws-access-key-id=AKIA", "--aws-secret-access-key=geheim"])
def test_keys_for_aws_are_refused_by_name(firectl, api, flag):
    ran = firectl("secret", "create", "--name", "AWS_CREDS", flag)
    assert ran.code == 1 and flag.partition("=")[0] in ran.err
    assert "geheim" not in ran.err and api.requests == []


def test_an_identity_provider_is_sent_with_every_flag(firectl, api):
    api.on("POST", f"{HOME}/identityProviders", {})
    flags = [
        "--display-name=Example OIDC", "--oidc-issuer=https://x.org", "--oidc-client-id=h",
        "--oidc-client-secret=s", "--tenant-domains=x.org,x.com", "--enable-jit-user-provisioning",
        "--jit-default-role=inference-user", "--disabled",
    ]  # fmt: skip
    assert firectl("create", "identity-provider", *flags).code == 0
    (sent,) = api.sent("POST")
    assert sent.query == {"identityProviderId": "example-oidc"}
    assert sent.body == {
        "displayName": "Example OIDC",
        "oidcConfig": {"issuerUrl": "https://x.org", "clientId": "h", "clientSecret": "s"},
        "tenantDomains": ["x.org", "x.com"],
        "enableJitUserProvisioning": True,
        "defaultRole": "inference-user",
        "disabled": True,
    }


def test_filters_of_ones_own_are_added_to(firectl, api):
    api.on("GET", f"{HOME}/reservations", {"reservations": []})
    firectl("list", "reservations")
    firectl("list", "reservations", "--filter", "reserved_count > 1 OR region = A")
    firectl("list", "reservations", "--show-inactive")
    filters = [request.query.get("filter") for request in api.sent("GET")]
    assert filters == [
        'state != "EXPIRED"', 'state != "EXPIRED" AND (reserved_count > 1 OR region = A)', None,
    ]  # fmt: skip


def test_versions_are_listed_of_one_shape_or_of_all(firectl, api):
    for shape in ("fast", "-"):
        versions = [{"name": f"accounts/acme/deploymentShapes/{shape}/versions/v1"}]
        api.on("GET", f"{HOME}/deploymentShapes/{shape}/versions", {"deploymentShapeVersions": versions})
    assert "fast/versions/v1" in firectl("list", "deployment-shape-versions", "fast").out
    assert firectl("deployment-shape-version", "list", "--base-model", "m").code == 0
    assert api.requests[-1].query["filter"] == 'snapshot.base_model = "accounts/acme/models/m"'


@pytest.mark.parametrize(
    "given", ["fast/v1", "fast/versions/v1", "accounts/acme/deploymentShapes/fast/versions/v1"]
)
def test_a_version_has_a_short_and_a_full_name(firectl, api, given):
    api.on("GET", f"{HOME}/deploymentShapes/fast/versions/v1", {"name": "x"})
    assert firectl("get", "deployment-shape-version", given).code == 0


def test_usage_of_a_long_time_is_asked_for_in_parts_that_end_at_midnight(firectl, api):
    api.on("GET", HOME, {"name": "accounts/acme", "email": "a@x.org", "createTime": "2030-01-05T10:00:00Z"})
    api.on("GET", f"{HOME}/billingUsage", {})
    assert firectl("billing", "export-metrics", "--end-time", "2030-03-10").code == 0
    asked = [(r.query["startTime"], r.query["endTime"]) for r in api.sent("GET", f"{HOME}/billingUsage")]
    assert asked == [
        ("2030-01-05T00:00:00Z", "2030-02-05T00:00:00Z"),
        ("2030-02-05T00:00:00Z", "2030-03-08T00:00:00Z"),
        ("2030-03-08T00:00:00Z", "2030-03-10T00:00:00Z"),
    ]


def test_a_file_is_not_touched_when_usage_cannot_be_read(firectl, api, tmp_path):
    (tmp_path / "usage.csv").write_text("of last month\n")
    api.on("GET", HOME, {"createTime": "2025-01-05T10:00:00Z"})
    api.on("GET", f"{HOME}/billingUsage", api.refusal(403, 7, "no"))
    ran = firectl("billing", "export-metrics", "--filename", str(tmp_path / "usage.csv"))
    assert ran.code == 1
    assert (tmp_path / "usage.csv").read_text() == "of last month\n"


@pytest.mark.parametrize(
    ("noun", "given", "collection", "key", "there"),
    [
        (
            "deployment-shape-version",
            "fast/003fade7",
            "deploymentShapes/fast/versions",
            "deploymentShapeVersions",
            "003fade6",
        ),
        ("reservation", "h100x", "reservations", "reservations", "h100"),
    ],
)
def test_near_ids_are_told_of_what_is_listed_in_its_own_way(
    firectl, api, noun, given, collection, key, there
):
    missing = f"{HOME}/{collection}/{given.rpartition('/')[2]}"
    api.on("GET", missing, api.refusal(404, 5, f"{missing.removeprefix('/v1/')} not found"))
    api.on("GET", f"{HOME}/{collection}", {key: [{"name": f"accounts/acme/{collection}/{there}"}]})
    ran = firectl("get", noun, given)
    assert ran.code == 1
    assert f"did you mean {there}?" in ran.err and f"firectl list {noun}s" in ran.err


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.words[0])
def test_commands_of_other_products_are_refused_by_name(firectl, api, refused):
    for word in refused.words:
        for line in ([word], [word, "list"], ["create", word, "--model", "m", "-x"], [word, "--help"]):
            ran = firectl(*line)
            assert (ran.code, ran.out) == (1, ""), line
            assert f'Error: "{word}" is not available here: {refused.why}\n' in ran.err
    assert api.requests == []


def test_a_model_may_be_called_like_a_command_of_another_product(firectl, api):
    api.on("GET", f"{HOME}/models/router", {"name": "accounts/acme/models/router"})
    assert firectl("get", "model", "router").code == 0
    api.on("POST", f"{HOME}/deployedModels", {"name": "accounts/acme/deployedModels/session"})
    assert firectl("deploy", "session").code == 0


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2030-01-31", "2030-01-31T00:00:00Z"),
        ("2030-01-31 18:00:00", "2030-01-31T18:00:00Z"),
        ("2030-01-31 18:00:00 UTC", "2030-01-31T18:00:00Z"),
        ("2030-01-31T18:00:00+02:00", "2030-01-31T16:00:00Z"),
        ("2030-01-31T18:00:00.5Z", "2030-01-31T18:00:00.500000Z"),
    ],
)
def test_times_are_read_as_people_write_them(text, meant):
    assert moments.stamp(moments.later(text, "--expire-time")) == meant


def test_a_length_of_time_is_ahead_or_behind():
    assert moments.later("1h30m", "--x") - moments.earlier("1h30m", "--x") >= timedelta(hours=3)
    assert moments.earlier("24h", "--x") < datetime.now(UTC) < moments.later("24h", "--x")


@pytest.mark.parametrize(
    "bad", ["tomorrow", "", "2030-13-01", "24", "99999999999h", "0001-01-01T00:00:00+02:00"]
)
def test_what_is_no_time_is_told(bad):
    with pytest.raises(UsageError, match="--start-time"):
        moments.earlier(bad, "--start-time")


@pytest.mark.parametrize(
    ("units", "nanos", "shown"),
    [
        ("12", 500_000_000, "USD 12.50"),
        ("0", 0, "USD 0.00"),
        ("0", 4_000_000, "USD 0.004"),
        ("1", 234_567_890, "USD 1.23"),
        ("-3", -250_000_000, "USD -3.25"),
    ],
)
def test_money_is_exact_to_the_cent_and_never_nothing(units, nanos, shown):
    assert dollars({"currencyCode": "USD", "units": units, "nanos": nanos}) == shown
    assert dollars(None) == "USD 0.00"


@pytest.mark.parametrize(
    ("argv", "method", "path"),
    [
        ("get account", "GET", ""),
        ("create user --email a@x.org", "POST", "/users"),
        ("delete user ada", "DELETE", "/users/ada"),
        ("create api-key", "POST", "/apiKeys"),
        ("list api-keys", "GET", "/users/ada/apiKeys"),
        ("get api-key k1", "GET", "/apiKeys"),
        ("delete api-key k1", "POST", "/apiKeys:delete"),
        ("get secret S", "GET", "/secrets/s"),
        ("delete secret S", "DELETE", "/secrets/s"),
        ("update quota models --value 1", "PATCH", "/quotas/models"),
        ("list reservations", "GET", "/reservations"),
        ("delete identity-provider x", "DELETE", "/identityProviders/x"),
        ("list audit-logs", "GET", "/auditLogs"),
        ("billing summary", "GET", "/billing/summary"),
        ("billing get-usage", "GET", "/billingUsage"),
        ("list deployment-metrics d", "GET", "/deployments/d:metrics"),
        ("create deployment-shape m", "POST", "/deploymentShapes"),
        ("update deployment-shape s --precision FP8", "PATCH", "/deploymentShapes/s"),
        ("update deployment-shape-version s/v --public", "PATCH", "/deploymentShapes/s/versions/v"),
        ("match deployment-shape-version m", "POST", "/deploymentShapeVersions:match"),
    ],
)
def test_a_dry_run_shows_the_request_and_changes_nothing(firectl, api, argv, method, path):
    knows_who_asks(api)
    ran = firectl(*argv.split(), "--dry-run")
    assert ran.code == 0, ran.err
    assert (ran.json["method"], ran.json["url"]) == (method, f"{api.url}{HOME}{path}")
    assert {(request.method, request.path) for request in api.requests} <= {("GET", "/verifyApiKey")}
