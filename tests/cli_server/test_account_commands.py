"""Every command about accounts, people, keys, secrets, limits and money does its job on a real server."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta

import pytest


def test_an_account_is_shown_and_listed_and_not_changed(firectl):
    shown = firectl.done("get", "account").out
    assert "Name: accounts/hearth\n" in shown and "State: READY\n" in shown
    assert firectl.done("account", "get", "accounts/hearth").out == shown
    assert firectl.json("list", "accounts")[0]["name"] == "accounts/hearth"
    refused = firectl("account", "update", "--display-name", "Other")
    assert (refused.code, refused.out) == (1, "")
    assert "whoever runs the server" in refused.err


def test_another_account_is_not_found(firectl, other_key):
    ran = firectl("get", "account", "rival")
    assert ran.code == 1
    assert "accounts/rival" in ran.err and "not found" in ran.err


def test_a_user_is_created_found_changed_and_deleted(firectl):
    created = firectl.done("create", "user", "--email=alice@example.com")
    assert "Name: accounts/hearth/users/alice\n" in created.out and "Role: user\n" in created.out
    firectl.done("update", "user", "alice", "--role=admin")
    assert firectl.json("get", "user", "alice")["role"] == "admin"
    firectl.done("update", "user", "alice", "--user=contributor")
    firectl.done("user", "update", "accounts/hearth/users/alice", "--display-name=Alice Cullen")
    assert "Role: contributor\n" in firectl.done("get", "user", "alice").out
    listed = firectl.done("list", "users", "--filter", "role = contributor").out
    assert "Alice Cullen (alice)" in listed and "alice@example.com" in listed and "admin" not in listed
    assert firectl.done("delete", "user", "alice").err == "Deleted accounts/hearth/users/alice\n"
    assert firectl("get", "user", "alice").code == 1


def test_what_is_wrong_with_a_user_is_told(firectl):
    assert firectl("create", "user", "--role", "admin").code == 2
    emperor = firectl("create", "user", "--email", "a@example.com", "--role", "emperor")
    assert emperor.code == 2 and "admin, user, contributor, inference-user" in emperor.err
    preset = firectl("create", "user", "--email", "a@example.com", "--permission-preset", "agent")
    assert preset.code == 1 and "permissionPreset" in preset.err
    firectl.done("create", "user", "--email", "b@example.com")
    twice = firectl("create", "user", "--email", "b@example.com")
    assert twice.code == 1 and """firectl list users --filter 'email = "b@example.com"'""" in twice.err
    last = firectl("delete", "user", "admin")
    assert last.code == 1 and "last admin" in last.err
    assert firectl.json("list", "users", "--filter", 'email = "a@example.com"') == []


def test_a_key_is_shown_once_works_and_stops_working(firectl):
    created = firectl.done(
        "create", "api-key", "--key-name=Production Key", "--expire-time=2099-12-31 23:59:59"
    )
    fields = dict(line.split(": ", 1) for line in created.out.splitlines())
    assert fields["Display Name"] == "Production Key"
    assert fields["Expire Time"] == "2099-12-31 23:59:59"
    assert "only this once" in created.err and fields["Key"] not in created.err
    theirs = {"FIREWORKS_API_KEY": fields["Key"]}
    assert firectl.done("list", "models", env=theirs).code == 0

    shown = firectl.json("get", "api-key", fields["Key ID"])
    assert (shown["display_name"], shown["key"]) == ("Production Key", "")
    assert "Production Key" in firectl.done("list", "api-keys").out
    assert fields["Key"] not in firectl.done("list", "api-keys").out
    firectl.done("delete", "api-key", fields["Key ID"])
    assert firectl("list", "models", env=theirs).code == 1
    gone = firectl("get", "api-key", fields["Key ID"])
    assert gone.code == 1 and "there is no API key" in gone.err
    assert firectl("delete", "api-key", fields["Key ID"]).code == 1


def test_keys_are_listed_of_oneself_of_a_service_account_and_of_all(firectl):
    firectl.done("create", "user", "--service-account", "--user-id", "ci-bot", "--role=inference-user")
    firectl.done("create", "api-key", "--service-account=ci-bot", "--key-name", "ci", "--expire-time", "24h")
    names = [key["display_name"] for key in firectl.json("list", "api-keys", "--service-account", "ci-bot")]
    assert names == ["ci"]
    assert "ci" not in [key["display_name"] for key in firectl.json("list", "api-keys")]
    assert "ci" in [key["display_name"] for key in firectl.json("list", "api-keys", "--all-users")]
    newest = firectl.json("list", "api-keys", "--all-users", "--order-by", "create_time desc")[0]
    assert newest["display_name"] == "ci"


def test_a_key_that_lasts_a_day_expires_tomorrow(firectl):
    made = firectl.json("api-key", "create", "--expire-time", "24h")
    left = datetime.fromisoformat(made["expire_time"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=55) < left <= timedelta(hours=24)


def test_only_admins_see_the_keys_of_others(firectl, as_user):
    firectl.done("create", "user", "--service-account", "--user-id", "ci-bot")
    ran = as_user("user")("create", "api-key", "--service-account", "ci-bot")
    assert ran.code == 1 and "only an admin" in ran.err


@pytest.mark.parametrize("late", ["2001-01-01", "0s"])
def test_a_key_cannot_have_expired_already(firectl, late):
    ran = firectl("create", "api-key", "--expire-time", late)
    assert ran.code == 1 and "past" in ran.err


def test_a_secret_is_kept_from_a_flag_a_file_and_a_pipe(firectl, home):
    made = firectl.done("create", "secret", "--name", "MY_SECRET", "--value", "mysecretvalue")
    assert "Name: accounts/hearth/secrets/my-secret\n" in made.out
    assert "Key Name: MY_SECRET\n" in made.out
    (home / "key.txt").write_text("fromthefile\n")
    firectl.done("secret", "create", "WANDB_API_KEY", "--from-file", "key.txt")
    firectl.done("create", "secret", "piped", stdin="fromthepipe\n")
    rows = firectl.json("list", "secrets")
    assert [row["key_name"] for row in rows] == ["MY_SECRET", "piped", "WANDB_API_KEY"]
    everything = firectl.done("list", "secrets").out + str(rows) + made.out + made.err
    assert not any(value in everything for value in ("mysecretvalue", "fromthefile", "fromthepipe"))


def test_a_secret_is_shown_changed_and_deleted_by_its_name(firectl):
    firectl.done("create", "secret", "--name", "MY_SECRET", "--value", "one")
    assert firectl.json("get", "secret", "MY_SECRET")["name"] == "accounts/hearth/secrets/my-secret"
    twice = firectl("create", "secret", "MY_SECRET", "--value", "two")
    assert twice.code == 1 and "firectl update secret my-secret" in twice.err
    firectl.done("secret", "update", "--id", "MY_SECRET", "--value", "two")
    firectl.done("update", "secret", "my-secret", "--key-name", "OTHER")
    assert firectl.json("get", "secret", "--id", "my-secret")["key_name"] == "OTHER"
    firectl.done("secret", "delete", "MY_SECRET")
    gone = firectl("get", "secret", "MY_SECRET")
    assert gone.code == 1 and "firectl list secrets" in gone.err


def test_a_value_never_shows_even_when_it_is_wrong(firectl):
    huge = "abcdefgh" * 10_000
    ran = firectl("create", "secret", "big", "--debug", stdin=huge)
    assert ran.code == 1 and "65536" in ran.err
    assert "abcdefgh" not in ran.err + ran.out
    assert firectl("create", "secret", "empty", stdin="\n").code == 1
    twice = firectl("create", "secret", "s", "--value", "geheim", "--from-file", "key.txt")
    assert twice.code == 2 and "geheim" not in twice.err
    assert firectl.json("list", "secrets") == []


def test_a_quota_is_listed_shown_and_set_up_to_its_most(firectl):
    assert re.search(r"^serverless-inference-rpm +6000 ", firectl.done("list", "quotas").out, re.MULTILINE)
    changed = firectl.done("quota", "update", "serverless-inference-rpm", "--value", "300")
    assert "Value: 300\n" in changed.out
    assert firectl.json("get", "quota", "serverless-inference-rpm")["value"] == "300"
    over = firectl("update", "quota", "serverless-inference-rpm", "--value=999999999")
    assert over.code == 1 and "600,000" in over.err.replace("600000", "600,000")
    assert firectl("update", "quota", "serverless-inference-rpm").code == 2
    assert firectl("get", "quota", "nothing-such").code == 1


def test_reservations_are_those_that_are_not_over(firectl, reserve):
    reserve("old", days=(-20, -10))
    reserve("now", days=(-1, 10))
    reserve("soon", days=(1, 10))
    names = [row["name"].rpartition("/")[2] for row in firectl.json("list", "reservations")]
    assert sorted(names) == ["now", "soon"]
    assert len(firectl.json("list", "reservations", "--show-inactive")) == 3
    table = firectl.done("list", "reservations", "--filter", "reserved_count = 8").out
    assert "NVIDIA_H100_80GB" in table and "ACTIVE" in table
    assert "Reserved Count: 8\n" in firectl.done("get", "reservation", "now").out


def test_the_audit_log_tells_who_did_what(firectl, as_user):
    firectl.done("create", "user", "--email=alice@example.com")
    as_user("user")("create", "user", "--email=eve@example.com")
    table = firectl.done("audit-log", "list", "--start-time", "1h").out
    assert "accounts/hearth/users/alice" in table and "OK" in table
    tried = firectl.json("list", "audit-logs", "--email", "user@hearth.example")
    assert [entry["status"]["code"] for entry in tried] == ["PERMISSION_DENIED"]
    assert firectl.json("list", "audit-logs", "--end-time", "2001-01-01") == []
    oldest = firectl.json("list", "audit-logs", "--order-by", "timestamp", "--filter", "message = CreateUser")
    assert oldest[0]["resource"] == "accounts/hearth/users/alice"


def test_the_summary_adds_up_what_was_used(firectl, spend):
    spend("m1", dollars=2)
    spend("m2", dollars=3)
    text = firectl.done("billing", "summary").out
    assert text.index("accounts/fireworks/models/m2") < text.index("accounts/fireworks/models/m1")
    assert "USD 3.00" in text and text.endswith("Total Cost: USD 5.00\n")
    assert firectl.json("summary", "billing")["total_cost"]["units"] == "5"
    before = firectl.done("summary", "billing", "--start-time=2020-01-01", "--end-time=2020-02-01")
    assert before.out.endswith("Total Cost: USD 0.00\n")
    wrong = firectl("billing", "summary", "--start-time", "2020-02-01", "--end-time", "2020-01-01")
    assert wrong.code == 1 and "before" in wrong.err


def test_usage_is_told_by_day_and_group(firectl, spend):
    spend("m1", dollars=2)
    spend("m2", dollars=3)
    text = firectl.done("billing", "get-usage", "--usage-type", "serverless", "--group-by", "model_name").out
    assert "models/m1" in text and "USD 2.00" in text and text.endswith("Total Cost: USD 5.00\n")
    only = ("--filter", "model_name=accounts/fireworks/models/m2", "--timezone=Europe/London")
    assert firectl.done("billing", "get-usage", *only, "--account-costs-only").out == "Total Cost: USD 3.00\n"
    (row,) = firectl.json("billing", "get-usage", *only)["serverless_costs"]
    assert row["group"] == {"model_name": "accounts/fireworks/models/m2"}
    for wrong in ("--timezone=Mars", "--group-by=colour", "--start-time=2020-01-01"):
        assert firectl("billing", "get-usage", wrong).code == 1
    for wrong in ("--usage-type=joy", "--filter=m2"):
        assert firectl("billing", "get-usage", wrong).code == 2


def test_usage_is_exported_as_csv(firectl, home, spend):
    spend("m1", dollars=2)
    printed = firectl.done("billing", "export-metrics").out
    (row,) = csv.DictReader(io.StringIO(printed))
    assert (row["base_model_name"], row["prompt_tokens"]) == ("accounts/fireworks/models/m1", "7")
    assert float(row["cost_usd"]) == 2 and row["usage_type"] == "SERVERLESS"
    written = firectl.done("billing", "export-metrics", "--filename", "usage.csv", "--start-time", "72h")
    assert written.out == "" and "usage.csv" in written.err
    assert (home / "usage.csv").read_text() == printed
    long_ago = firectl.done("billing", "export-metrics", "--start-time=2020-01-01", "--end-time=2020-06-01")
    assert long_ago.out.count("\n") == 1
    assert firectl.json("export-metrics", "billing")[0]["base_model_name"] == row["base_model_name"]


def test_money_is_not_shown_to_who_may_not_see_it(as_user):
    ran = as_user("contributor")("billing", "summary")
    assert ran.code == 1 and "Error: " in ran.err


def test_metrics_are_told_of_one_deployment_and_of_all(firectl, base):
    firectl.done("create", "deployment", "base", "--deployment-id", "d1", "--min-replica-count=0")
    firectl.done("create", "deployment", "base", "--deployment-id", "d2", "--min-replica-count=0")
    text = firectl.done("deployment-metrics", "list", "d1", "--time-range", "30m").out
    assert "REPLICA_COUNT" in text and "d2" not in text
    rows = firectl.json("list", "deployment-metrics", "--metric", "requests-total")
    assert [(row["deployment"], row["value"]) for row in rows] == [
        ("accounts/hearth/deployments/d1", 0),
        ("accounts/hearth/deployments/d2", 0),
    ]
    assert "there is no metric" in firectl("list", "deployment-metrics", "d1", "--metric", "joy").err
    assert firectl("list", "deployment-metrics", "d1", "--time-range", "1y").code == 1
    assert "--interval" in firectl("list", "deployment-metrics", "--interval", "24h").err
    assert firectl("list", "deployment-metrics", "nobody").code == 1


def test_a_shape_is_made_validated_matched_changed_and_deleted(firectl, base):
    addons = ("--enable-addons", "--num-lora-device-cached", "8")
    made = firectl.done("create", "deployment-shape", "base", "--deployment-shape-id", "fast", *addons)
    assert "Base Model: accounts/hearth/models/base\n" in made.out
    (version,) = firectl.json("list", "deployment-shape-versions", "fast")
    short = version["name"].removeprefix("accounts/hearth/deploymentShapes/")
    assert short in firectl.done("list", "deployment-shape-versions", "--base-model", "base").out
    assert firectl.json("match", "deployment-shape-version", "--model", "base") == []
    firectl.done("update", "deployment-shape-version", short, "--validated")
    (match,) = firectl.json("deployment-shape-version", "match", "base", "--enable-addons")
    assert match["name"] == version["name"]
    other = ("--enable-addons", "--max-peft-batch-size", "2")
    assert firectl.json("match", "deployment-shape-version", "base", *other) == []
    assert firectl.done("get", "deployment-shape-version", version["name"]).out.count("Validated: true") == 2
    firectl.done("ds", "update", "fast", "--max-context-length", "512")
    assert len(firectl.json("deployment-shape-version", "list")) == 2
    assert "fast" in firectl.done("list", "deployment-shapes", "--target-model", "base").out
    firectl.done("delete", "deployment-shape", "fast")
    assert firectl("get", "deployment-shape", "fast").code == 1


def test_what_a_shape_cannot_be_is_told(firectl, base):
    odd = firectl("create", "deployment-shape", "base", "--draft-model", "base")
    assert odd.code == 1 and "draftModel" in odd.err
    assert firectl("create", "deployment-shape", "nothing").code == 1
    assert firectl("create", "deployment-shape").code == 2
    named = firectl("get", "deployment-shape-version", "fast")
    assert named.code == 2 and "ID/versions/ID" in named.err
    assert firectl("match", "deployment-shape-version").code == 2
