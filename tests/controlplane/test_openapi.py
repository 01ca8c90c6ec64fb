"""`/openapi.json` says what the endpoints really answer."""

import pytest

from controlplane.app import create_app
from controlplane.errors import Code
from controlplane.rest.router import ABOUT_ERRORS
from controlplane.rest.schema import not_returned

METHODS = {"get", "post", "patch", "delete", "put"}


@pytest.fixture(scope="module")
def document():
    return create_app(settings=_Settings()).openapi()


class _Settings:
    request_body_limit = 1024
    request_body_seconds = 1.0


def operations(document):
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield path, method, item[method]


def schema(document, content):
    name = content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    return name, document["components"]["schemas"][name]


def test_every_answer_and_every_error_is_described(document):
    for path, method, operation in operations(document):
        errors = operation["responses"].keys() - {"200"}
        assert {"400", "401", "404", "500", "503"} <= errors, (method, path)
        assert method == "get" or {"409", "413", "429"} <= errors, (method, path)
        for code in errors:
            name, error = schema(document, operation["responses"][code]["content"])
            assert (name, error["properties"].keys()) == ("RpcStatus", {"code", "message", "details"})
        assert operation["summary"]


def test_every_code_of_an_error_is_one_that_is_described():
    described = {*ABOUT_ERRORS, 405}  # 405 is the answer where there is no endpoint to describe it
    never = (Code.CANCELLED, Code.UNKNOWN, Code.UNIMPLEMENTED)  # the last one is raised as 400
    raised = {code.http_status for code in Code if code not in never}
    assert raised <= described


def test_every_field_tells_its_type_and_what_may_stand_in_it(document):
    for message, described in document["components"]["schemas"].items():
        for name, field in described.get("properties", {}).items():
            if field.get("description") == not_returned().description:
                continue
            assert {"type", "$ref", "anyOf", "enum", "allOf"} & field.keys(), (message, name)
            known = {"example", "examples", "default", "enum", "$ref", "anyOf"} & field.keys()
            assert known, (message, name)


def test_operations_have_names_for_clients_that_are_made_from_them(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert "models_create_model" in names


def test_every_endpoint_wants_a_key(document):
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, method, operation in operations(document):
        # Who signs in has none yet, and the version is no secret.
        wants = path != "/version" and not path.startswith("/v1/auth/")
        assert ({"bearer": []} in operation.get("security", [])) is wants, (method, path)


def test_lists_have_the_collections_own_key(document):
    lists = [op for _, _, op in operations(document) if op["summary"].startswith("List ")]
    assert len(lists) >= 9
    for operation in lists:
        name, answer = schema(document, operation["responses"]["200"]["content"])
        (key,) = answer["properties"].keys() - {"nextPageToken", "totalSize"}
        assert name == f"List{key[0].upper()}{key[1:]}Response"
        assert key == operation["tags"][0]
        item = document["components"]["schemas"][answer["properties"][key]["items"]["$ref"].rsplit("/", 1)[1]]
        assert {"name", "keyId"} & item["properties"].keys()
        assert {"pageSize", "pageToken", "filter", "orderBy", "readMask"} <= {
            parameter["name"] for parameter in operation["parameters"]
        }


async def test_what_is_described_is_what_is_answered(api):
    document = (await api.get("/openapi.json")).json()
    _, answer = schema(
        document, document["paths"]["/v1/accounts/{account_id}/users"]["get"]["responses"]["200"]["content"]
    )
    listed = (await api.get("/v1/accounts/hearth/users")).json()
    assert listed.keys() == answer["properties"].keys()


async def test_every_state_and_status_code_is_an_enum(http):
    schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    # A sign-in's state is a text of the client's own, and no default stands for unset.
    fields = [(name, schema.get("properties", {}).get("state")) for name, schema in schemas.items()]
    states = [(name, field) for name, field in fields if field and field["default"]]
    assert len(states) > 8
    for name, field in [*states, ("Status", schemas["Status"]["properties"]["code"])]:
        assert field["default"] == field["enum"][0], name
