"""`/openapi.json` says what the endpoints really answer."""

import pytest

from controlplane.app import create_app

METHODS = {"get", "post", "patch", "delete", "put"}


@pytest.fixture(scope="module")
def document():
    return create_app(settings=_Settings()).openapi()


class _Settings:
    request_body_limit = 1024


def operations(document):
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield path, method, item[method]


def schema(document, content):
    name = content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    return name, document["components"]["schemas"][name]


def test_every_answer_and_every_error_is_described(document):
    for path, method, operation in operations(document):
        assert operation["responses"].keys() == {"200", "default"}, (method, path)
        name, error = schema(document, operation["responses"]["default"]["content"])
        assert (name, error["properties"].keys()) == ("RpcStatus", {"code", "message", "details"})
        assert operation["summary"]


def test_every_endpoint_wants_a_key(document):
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, method, operation in operations(document):
        assert {"bearer": []} in operation["security"], (method, path)


def test_lists_have_the_collections_own_key(document):
    lists = [op for _, _, op in operations(document) if op["summary"].startswith("List ")]
    assert len(lists) == 9
    for operation in lists:
        name, answer = schema(document, operation["responses"]["200"]["content"])
        (key,) = answer["properties"].keys() - {"nextPageToken", "totalSize"}
        assert name == f"List{key[0].upper()}{key[1:]}Response"
        assert key == operation["tags"][0]
        item = document["components"]["schemas"][answer["properties"][key]["items"]["$ref"].rsplit("/", 1)[1]]
        assert "createTime" in item["properties"]
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
