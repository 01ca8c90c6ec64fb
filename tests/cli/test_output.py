"""Text and JSON forms of results."""

import io
import json
from datetime import UTC, datetime

import pytest
import yaml

from cli.resources import RESOURCES
from cli.show.documents import write_json, write_yaml
from cli.show.output import Output, span, text_lines
from cli.show.readable import Look, relative_time
from cli.show.tables import fitted_table
from cli.show.terminal import cell_width, shortened, wants_colour

HOME = "/v1/accounts/acme"
MODEL = {
    "baseModelDetails": {"parameterCount": "13015864320", "worldSize": 1},
    "createTime": "2024-02-29T20:36:24.123456789Z",
    "deployedModelRefs": [
        {
            "name": "accounts/acme/deployedModels/a",
            "deployment": "accounts/acme/deployments/d1",
            "state": "DEPLOYED",
            "default": True,
        },
        {"name": "accounts/acme/deployedModels/b", "state": "DEPLOYED", "default": False},
    ],
    "description": "",
    "displayName": "Code Llama 13B",
    "kind": "HF_BASE_MODEL",
    "name": "accounts/acme/models/code-llama-13b",
    "state": "READY",
    "status": {"code": "OK", "message": ""},
    "supportsLora": True,
}


def test_get_prints_label_value_lines(firectl, api):
    api.on("GET", f"{HOME}/models/code-llama-13b", MODEL)

    ran = firectl("get", "model", "code-llama-13b")

    assert ran.out.splitlines() == [
        "Name: accounts/acme/models/code-llama-13b",
        "Display Name: Code Llama 13B",
        f"Create Time: {ran.out.splitlines()[2].removeprefix('Create Time: ')}",
        "State: READY",
        "Status: OK",
        "Base Model Details:",
        "  Parameter Count: 13015864320",
        "  World Size: 1",
        "Deployed Model Refs:",
        "[{",
        "  Name: accounts/acme/deployedModels/a",
        "  Deployment: accounts/acme/deployments/d1",
        "  State: DEPLOYED",
        "  Default: true",
        "},",
        "{",
        "  Name: accounts/acme/deployedModels/b",
        "  State: DEPLOYED",
        "}",
        "]",
        "Kind: HF_BASE_MODEL",
        "Supports Lora: true",
    ]
    assert ran.out.splitlines()[2].startswith("Create Time: 2024-0")


def test_get_prints_json_with_proto_field_names(firectl, api):
    api.on("GET", f"{HOME}/models/code-llama-13b", MODEL)
    shown = firectl("get", "model", "code-llama-13b", "-o", "json").json
    assert shown["display_name"] == "Code Llama 13B"
    assert shown["base_model_details"]["parameter_count"] == "13015864320"
    assert shown["deployed_model_refs"][0]["default"] is True


def test_json_leaves_the_users_own_words_alone(firectl, api):
    deployment = {"autoscalingPolicy": {"loadTargets": {"tokensPerUser": 1}}, "annotations": {"myKey": "v"}}
    api.on("GET", f"{HOME}/deployments/d", deployment)
    shown = firectl("get", "deployment", "d", "-o=json").json
    assert shown == {
        "autoscaling_policy": {"load_targets": {"tokensPerUser": 1}},
        "annotations": {"myKey": "v"},
    }


def test_list_prints_a_table_under_two_header_lines(firectl, api):
    api.on("GET", f"{HOME}/models", {"models": [MODEL]})
    first, second, row = firectl("list", "models").out.splitlines()
    assert first.split() == ["NAME", "CREATE", "TIME", "KIND", "STATE"]
    assert set(second.replace(" ", "")) == {"="}
    name, created, kind, state = row.split("    ")
    assert (name, kind, state) == ("Code Llama 13B (code-llama-13b)", "HF_BASE_MODEL", "READY")
    assert len(created) == len("2024-02-29 20:36:24")


def test_an_empty_list_still_has_its_headers_and_json_is_an_empty_array(firectl, api):
    api.on("GET", f"{HOME}/models", {"models": [], "nextPageToken": ""})
    assert len(firectl("list", "models").out.splitlines()) == 2
    assert firectl("list", "models", "-o", "json").json == []


def test_list_gathers_all_pages(firectl, api):
    pages = {"": ("t1", "a"), "t1": ("t2", "b"), "t2": ("", "c")}

    def page(request):
        token, name = pages[request.query.get("pageToken", "")]
        return api.ok({"datasets": [{"name": f"accounts/acme/datasets/{name}"}], "nextPageToken": token})

    api.on("GET", f"{HOME}/datasets", page)
    rows = firectl(
        "list", "datasets", "-o", "json", "--filter", 'state="READY"', "--order-by", "name desc"
    ).json
    assert [row["name"][-1] for row in rows] == ["a", "b", "c"]
    assert {(r.query["filter"], r.query["orderBy"]) for r in api.requests} == {('state="READY"', "name desc")}


def many(api):
    """A list of 300 datasets whose page tokens are numbers."""

    def page(request):
        start, size = int(request.query.get("pageToken", "0")), int(request.query["pageSize"])
        rows = [{"name": f"accounts/acme/datasets/d{n}"} for n in range(start, min(start + size, 300))]
        return api.ok({"datasets": rows, "nextPageToken": str(start + size) if start + size < 300 else ""})

    api.on("GET", f"{HOME}/datasets", page)


def test_the_page_size_is_the_most_to_list_and_the_token_of_the_next_is_named(firectl, api):
    many(api)
    ran = firectl("list", "datasets", "-o", "json", "--page-size", "5")
    assert [row["name"][-2:] for row in ran.json] == ["d0", "d1", "d2", "d3", "d4"]
    assert "--page-token 5" in ran.err
    assert [r.query for r in api.requests] == [{"pageSize": "5"}]


def test_a_page_may_be_larger_than_what_a_server_gives_at_a_time(firectl, api):
    many(api)
    ran = firectl("list", "datasets", "-o", "json", "--page-size", "250", "--page-token", "10")
    assert [ran.json[place]["name"].rpartition("/")[2] for place in (0, -1)] == ["d10", "d259"]
    assert "--page-token 260" in ran.err


def test_no_paginate_lists_all_whatever_the_page_size_says(firectl, api):
    many(api)
    ran = firectl("list", "datasets", "-o", "json", "--page-size", "5", "--no-paginate")
    assert (len(ran.json), ran.err) == (300, "")


def test_a_page_of_nothing_is_a_wrong_command_line(firectl, api):
    assert firectl("list", "datasets", "--page-size", "0").code == 2


def test_deleted_deployments_are_listed_when_asked_for(firectl, api):
    api.on("GET", f"{HOME}/deployments", {"deployments": []})
    firectl("list", "deployments", "--show-deleted")
    assert api.requests[0].query["showDeleted"] == "true"


def test_control_characters_of_a_name_do_not_reach_the_terminal():
    assert text_lines({"displayName": "evil\x1b[2Jname"}) == ["Display Name: evil\\x1b[2Jname"]


def test_a_failed_resource_shows_why():
    status = {"code": "INVALID_ARGUMENT", "message": "no weights"}
    assert text_lines({"state": "UPLOADING", "status": status})[1] == "Status: INVALID_ARGUMENT: no weights"


def test_a_jobs_warnings_stand_under_its_status_a_line_for_each():
    job = {
        "name": "accounts/a/dpoJobs/j",
        "epochs": 2,
        "status": {"code": "OK"},
        "warnings": ["cut off, all of them: 2 rows", "1.5 epochs are 3 steps \x1b[2J"],
    }
    assert text_lines(job) == [
        "Name: accounts/a/dpoJobs/j",
        "Status: OK",
        "Warnings:",
        "  cut off, all of them: 2 rows",
        "  1.5 epochs are 3 steps \\x1b[2J",
        "Epochs: 2",
    ]
    assert text_lines({"warnings": []}) == []


def test_references_to_another_account_are_shown_by_their_full_name(firectl, api):
    mine = {"name": "accounts/acme/deployments/d", "baseModel": "accounts/acme/models/own"}
    theirs = {"name": "accounts/acme/deployments/e", "baseModel": "accounts/fireworks/models/shared"}
    api.on("GET", f"{HOME}/deployments", {"deployments": [mine, theirs]})
    rows = firectl("list", "deployments").out.splitlines()[2:]
    assert [row.split()[1] for row in rows] == ["own", "accounts/fireworks/models/shared"]


def test_spans_read_like_a_clock():
    assert [span(s) for s in (0, 59, 75, 3700)] == ["0s", "59s", "1m15s", "1h01m"]


def test_yaml_holds_what_json_holds(firectl, api):
    api.on("GET", f"{HOME}/models/code-llama-13b", MODEL)
    as_yaml = firectl("get", "model", "code-llama-13b", "-o", "yaml")
    as_json = firectl("get", "model", "code-llama-13b", "-o", "json")
    assert yaml.safe_load(as_yaml.out) == as_json.json
    assert as_yaml.out.splitlines()[:2] == ["base_model_details:", "  parameter_count: '13015864320'"]
    assert as_yaml.err == ""


@pytest.mark.parametrize(
    "text", ["1", "1.5", "1e3", "0x1f", "0o17", "1_000", "-7", "true", "no", "y", "null", "", "12:30"]
)
def test_a_text_stays_a_text_in_yaml_whichever_version_reads_it(text):
    written = io.StringIO()
    write_yaml({"value": text}, written)
    assert yaml.safe_load(written.getvalue()) == {"value": text}
    assert written.getvalue().split(": ", 1)[1][0] in "'\""


@pytest.mark.parametrize("write", [write_json, write_yaml])
def test_documents_move_no_cursor_and_fit_every_encoding(write):
    written = io.StringIO()
    value = {"name": "a\x1b[2J\x9b\u2028\ud800 日本語 🎉"}
    write(value, written)
    assert not {"\x1b", "\x9b", "\u2028", "\ud800"} & set(written.getvalue())
    if write is write_json:
        assert json.loads(written.getvalue()) == value


@pytest.mark.parametrize("write", [write_json, write_yaml])
def test_every_script_reads_as_it_is(write):
    written = io.StringIO()
    write({"name": "日本語 🎉 é"}, written)
    assert "日本語 🎉 é" in written.getvalue()


def test_an_unknown_format_is_refused(firectl):
    assert firectl("get", "model", "m", "-o", "xml").code == 2


def test_an_empty_list_says_so_beside_the_result(firectl, api):
    api.on("GET", f"{HOME}/models", {"models": []})
    assert firectl("list", "models").err == "No models in accounts/acme\n"
    filtered = firectl("list", "models", "--filter", 'state="READY"')
    assert filtered.err == "No models in accounts/acme match the filter\n"
    assert firectl("list", "models", "-o", "yaml").out == "[]\n"
    assert firectl("list", "models", "--quiet").err == ""


def test_an_empty_list_of_some_never_says_that_there_are_none(firectl, api):
    api.on("GET", f"{HOME}/auditLogs", {"auditLogs": []})
    ran = firectl("list", "audit-logs", "--email", "alice@example.com")
    assert ran.err == "No audit logs in accounts/acme match the filter\n"


def test_no_current_reservations_leave_those_that_are_over(firectl, api):
    api.on("GET", f"{HOME}/reservations", {"reservations": []})
    told = firectl("list", "reservations").err.splitlines()
    assert told[0] == "No reservations in accounts/acme"
    assert "--show-inactive" in told[1]
    assert len(firectl("list", "reservations", "--show-inactive").err.splitlines()) == 1


def test_a_dry_run_of_a_list_shows_what_would_be_sent_and_nothing_empty(firectl, api):
    planned = firectl("list", "models", "--dry-run").json
    assert planned["query"] == {"pageSize": 200}


def test_a_dry_run_does_not_ask_whose_key_it_is(firectl, api):
    ran = firectl("delete", "model", "m", "--dry-run", env={"FIREWORKS_ACCOUNT_ID": None})
    assert ran.json["url"].endswith("/v1/accounts/ACCOUNT/models/m")
    assert "--account-id" in ran.err
    assert api.requests == []


def test_accounts_live_in_no_account(firectl, api):
    api.on("GET", "/v1/accounts", {"accounts": []})
    assert firectl("list", "accounts").err == "No accounts\n"


def test_errors_are_text_on_stderr_whatever_the_format(firectl, api):
    api.on("GET", f"{HOME}/models/m", api.refusal(404, 5, "accounts/acme/models/m not found"))
    ran = firectl("get", "model", "m", "-o", "json")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: accounts/acme/models/m not found")


def test_the_users_own_words_are_no_labels():
    resource = {"annotations": {"teamName": "x"}, "filenameToSize": {"config.json": "12"}}
    assert text_lines(resource) == [
        "Annotations:",
        "  teamName: x",
        "Filename To Size:",
        "  config.json: 12",
    ]


ROWS = [
    {
        "name": "accounts/acme/models/tickets-2026",
        "displayName": "Tickets 日本語 of the year",
        "createTime": "2026-01-01T00:00:00Z",
        "kind": "HF_PEFT_ADDON",
        "state": "READY",
    },
    {"name": "accounts/acme/models/b", "kind": "K", "state": "UPLOADING", "status": {"code": "INTERNAL"}},
]


@pytest.mark.parametrize("width", range(20, 140, 5))
def test_a_table_fits_its_terminal_and_keeps_every_id(width):
    lines = fitted_table(RESOURCES["model"].columns, ROWS, "acme", width, Look(readable=True))
    assert all(cell_width(line) <= width for line in lines)
    assert sum("tickets-2026" in line for line in lines) == 1
    assert any("READY" in line for line in lines)


def test_a_table_gives_up_first_what_is_missed_least():
    def table(width):
        return fitted_table(RESOURCES["model"].columns, ROWS, "acme", width, Look(readable=True))

    assert "2026-01-01 00:00:00" in table(120)[2]
    assert "HF_PEFT_ADDON" in table(100)[2]
    assert "ago" in table(90)[2]
    assert "日本語" in table(90)[2]
    assert "HF_PEFT…" in table(75)[2]
    assert table(30)[1].startswith("Create Time: ")


def test_wide_characters_keep_columns_straight():
    lines = fitted_table(RESOURCES["model"].columns, ROWS, "acme", 140, Look())
    states = [
        cell_width(line[: line.index(state)])
        for line, state in zip(lines[2:], ("READY", "UPLOADING"), strict=True)
    ]
    assert len(set(states)) == 1


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("日本語", 4, "日…"),
        ("日本語", 6, "日本語"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
        ("x", 0, ""),
    ],
)
def test_what_is_shortened_takes_no_more_cells_than_it_may(text, width, short):
    assert shortened(text, width) == short
    assert cell_width(short) <= width


class Console(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "wanted"),
    [
        (Console, {}, True),
        (io.StringIO, {}, False),
        (Console, {"NO_COLOR": "1"}, False),
        (Console, {"NO_COLOR": ""}, True),
        (Console, {"TERM": "dumb"}, False),
        (Console, {"CLICOLOR": "0"}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (io.StringIO, {"CLICOLOR_FORCE": "1"}, True),
        (io.StringIO, {"CLICOLOR_FORCE": "0"}, False),
        (io.StringIO, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_follow_the_terminal_and_the_environment(stream, environ, wanted):
    assert wants_colour(stream(), {"TERM": "xterm", **environ}) is wanted


def test_values_are_readable_for_people_and_exact_for_programs():
    resource = {
        "exampleCount": "1234567",
        "sizeBytes": "1500000000",
        "scaleDownWindow": "600s",
        "displayName": "1234567",
        "createTime": "2026-01-01T00:00:00Z",
    }
    now = datetime(2026, 1, 1, 0, 3, tzinfo=UTC)
    people = text_lines(resource, Look(readable=True, now=now))
    assert people[0] == "Display Name: 1234567"
    assert people[1].endswith("(3m ago)")
    assert people[2:] == ["Example Count: 1,234,567", "Size Bytes: 1.5 GB", "Scale Down Window: 10m00s"]
    assert text_lines(resource)[2:] == [
        "Example Count: 1234567",
        "Size Bytes: 1500000000",
        "Scale Down Window: 600s",
    ]


@pytest.mark.parametrize(
    ("stamp", "told"),
    [
        ("2026-01-01T00:00:00Z", "0s ago"),
        ("2025-12-31T23:57:00Z", "3m ago"),
        ("2025-12-31T00:00:00Z", "1d ago"),
        ("2024-12-31T00:00:00Z", "1y ago"),
        ("2026-01-01T02:00:00Z", "in 2h"),
        ("soon", ""),
    ],
)
def test_relative_times(stamp, told):
    assert relative_time(stamp, datetime(2026, 1, 1, tzinfo=UTC)) == told


def test_quiet_silences_notes_and_not_warnings():
    err = io.StringIO()
    output = Output(stdout=io.StringIO(), stderr=err, quiet=True)
    output.note("by the way")
    output.warn("look out")
    assert err.getvalue() == "look out\n"
    assert not output.live
