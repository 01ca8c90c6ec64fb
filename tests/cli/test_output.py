"""Text and JSON forms of results."""

from cli.output import span, text_lines

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


def test_one_page_names_the_token_of_the_next(firectl, api):
    api.on("GET", f"{HOME}/datasets", {"datasets": [], "nextPageToken": "t1"})
    ran = firectl("list", "datasets", "--no-paginate", "--page-size", "5")
    assert "--page-token t1" in ran.err
    assert [r.query for r in api.requests] == [{"pageSize": "5"}]


def test_deleted_deployments_are_listed_when_asked_for(firectl, api):
    api.on("GET", f"{HOME}/deployments", {"deployments": []})
    firectl("list", "deployments", "--show-deleted")
    assert api.requests[0].query["showDeleted"] == "true"


def test_control_characters_of_a_name_do_not_reach_the_terminal():
    assert text_lines({"displayName": "evil\x1b[2Jname"}) == ["Display Name: evil\\x1b[2Jname"]


def test_a_failed_resource_shows_why():
    status = {"code": "INVALID_ARGUMENT", "message": "no weights"}
    assert text_lines({"state": "UPLOADING", "status": status})[1] == "Status: INVALID_ARGUMENT: no weights"


def test_references_to_another_account_are_shown_by_their_full_name(firectl, api):
    mine = {"name": "accounts/acme/deployments/d", "baseModel": "accounts/acme/models/own"}
    theirs = {"name": "accounts/acme/deployments/e", "baseModel": "accounts/fireworks/models/shared"}
    api.on("GET", f"{HOME}/deployments", {"deployments": [mine, theirs]})
    rows = firectl("list", "deployments").out.splitlines()[2:]
    assert [row.split()[1] for row in rows] == ["own", "accounts/fireworks/models/shared"]


def test_spans_read_like_a_clock():
    assert [span(s) for s in (0, 59, 75, 3700)] == ["0s", "59s", "1m15s", "1h01m"]
