"""`docs/api.md`: the control plane's endpoints and messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.app import create_app
from controlplane.config import Settings
from controlplane.errors import Code
from controlplane.permissions import PERMISSIONS
from controlplane.permissions import ROLES as ROLE_NAMES
from controlplane.rest.router import ABOUT_ERRORS
from docs.generator.inference import IN_API_PAGE
from docs.generator.markdown import code, link, listed, page, prose, table
from docs.generator.schemas import Schemas, describe_type

INTRODUCTION = prose("""
Every path answers on the gateway's address. A request carries a key as `Authorization: Bearer KEY` or
`x-api-key: KEY`. A running platform has the control plane's OpenAPI document under `/openapi.json` and
shows it under `/docs`.
""")

RULES = prose("""
Bodies and answers are JSON. Requests may spell fields and query parameters in camelCase or snake_case;
answers are in camelCase. A field or query parameter that is not in these tables is refused by name.
*Output only* fields are set by the server and ignored in requests. *Refused* ones are part of the API,
but asking for them is answered with 400 and the reason that stands here; their default value is accepted.
Unset scalars and enums are written; unset messages are left out.

Timestamps look like `2030-01-01T00:00:00Z`, durations like `600s`. 64-bit integers may be sent as numbers
or strings and come back as strings. A body has 4 MiB and 30 seconds to arrive unless configured otherwise
(413, 408). A resource of another account is not found; only public models, shapes and what stands on them
can be read by others.

A PATCH changes the fields that `updateMask` names; without it, the fields of the body. `readMask` names
the fields to answer with. Both are comma-separated.

A resource comes with an `ETag`, the version of what clients may set of it. A PATCH or DELETE that sends it
back as `If-Match` is answered with 412 when somebody else changed the resource meanwhile.
""")

LISTS = prose("""
A list answers with `nextPageToken` when there is more: send it back as `pageToken`, with the same filter
and order. Pages stay stable while others create and delete. `totalSize` is exact up to 10,000; beyond that
it is the database's estimate.

`filter` is [AIP-160](https://google.aip.dev/160): `state = READY AND create_time > "2030-01-01T00:00:00Z"`,
`display_name = "llama*" OR annotations.team:research`, `NOT public = true`. Note that OR binds tighter than
AND there. A mistake is answered with 400 and the column where it is. `orderBy` is a comma-separated list
of fields, each with ` desc` if wanted: `state, create_time desc`.
""")

ROLES = prose("""
Every key belongs to a user or a service account, and what it may do goes by the role. *own* means only
what the caller created. The column *needs* in the tables below names the row that an endpoint asks for.
""")

ERRORS = prose("""
An error of the control plane is a `google.rpc.Status`: `code` (the number below), `message`, and
`details` that name the fields in question. Inference errors have OpenAI's shape: `{"error": {"message",
"type", "param", "code"}}`.
""")

SHARED = "Shared messages"
# A query parameter of this many collections is told once.
COMMON = 3


@dataclass(frozen=True)
class Endpoint:
    method: str
    path: str
    operation: Mapping[str, Any]

    @property
    def tag(self) -> str:
        return str(self.operation["tags"][0])

    @property
    def summary(self) -> str:
        return str(self.operation.get("summary", ""))

    @property
    def parameters(self) -> list[Mapping[str, Any]]:
        return [each for each in self.operation.get("parameters", []) if each["in"] == "query"]

    @property
    def body(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.operation.get("requestBody", {}).get("content", {})
        return found

    @property
    def answer(self) -> Mapping[str, Any]:
        """What it answers when all went well."""
        found: Mapping[str, Any] = self.operation["responses"].get("200", {}).get("content", {})
        return found


def api_page() -> str:
    document = openapi()
    return page(
        "The API",
        INTRODUCTION,
        "Parts: "
        + ", ".join(
            link(part) for part in ("Lists", "Roles", *_tags(document), SHARED, "Errors", "Inference")
        ),
        "## Rules of the control plane",
        RULES,
        "Query parameters that most collections take:",
        _parameter_table(_common_parameters(document).values()),
        "## Lists",
        LISTS,
        "## Roles",
        ROLES,
        _role_table(),
        *_collections(document),
        "## Errors",
        ERRORS,
        table(("code", "name", "HTTP"), [(str(c.number), code(c.name), str(c.http_status)) for c in Code]),
        "Of each HTTP status:",
        table(("HTTP", "when"), [(str(status), about) for status, about in ABOUT_ERRORS.items()]),
        "## Inference",
        IN_API_PAGE,
    )


def _role_table() -> str:
    rows = [
        (code(name), permission.meaning, *(permission.grant(role).value for role in ROLE_NAMES))
        for name, permission in PERMISSIONS.items()
    ]
    return table(("permission", "to", *(code(role) for role in ROLE_NAMES)), rows)


def openapi() -> dict[str, Any]:
    """The control plane's own description of itself; nothing is connected to."""
    settings = Settings(
        database_url="postgresql://none.invalid/none",
        redis_url="redis://none.invalid/0",
        s3_endpoint="http://none.invalid",
        s3_access_key="none",
        s3_secret_key="none",
    )
    return create_app(settings).openapi()


def endpoints(document: Mapping[str, Any]) -> Iterator[Endpoint]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield Endpoint(method.upper(), path, operation)


def _tags(document: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(endpoint.tag for endpoint in endpoints(document)))


def _common_parameters(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By name. One that reads differently somewhere is told there as well."""
    seen = {(each["name"], endpoint.tag) for endpoint in endpoints(document) for each in endpoint.parameters}
    count = Counter(name for name, _ in seen)
    named = {each["name"]: each for endpoint in endpoints(document) for each in endpoint.parameters}
    return {name: each for name, each in named.items() if count[name] >= COMMON}


def _collections(document: Mapping[str, Any]) -> Iterator[str]:
    schemas = Schemas(document)
    common = _common_parameters(document)
    uses = {
        tag: [
            name
            for endpoint in endpoints(document)
            if endpoint.tag == tag
            for name in schemas.within([endpoint.body, endpoint.answer])
        ]
        for tag in _tags(document)
    }
    count = Counter(name for names in uses.values() for name in dict.fromkeys(names))
    for tag, names in uses.items():
        yield f"## {tag}"
        yield from _collection([each for each in endpoints(document) if each.tag == tag], common)
        yield from _messages(schemas, [name for name in dict.fromkeys(names) if count[name] == 1])
    yield f"## {SHARED}"
    yield from _messages(schemas, [name for name in count if count[name] > 1])


def _collection(collection: list[Endpoint], common: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        (
            code(f"{endpoint.method} {endpoint.path}"),
            endpoint.summary,
            listed(each["name"] for each in endpoint.parameters),
            _content(endpoint.body),
            _content(endpoint.answer),
            code(endpoint.operation["x-permission"]) if "x-permission" in endpoint.operation else "",
        )
        for endpoint in collection
    ]
    yield table(("request", "what it does", "query", "body", "answer", "needs"), rows)
    own = {
        each["name"]: each
        for endpoint in collection
        for each in endpoint.parameters
        if each["name"] not in common
    }
    yield _parameter_table(own.values())


def _parameter_table(parameters: Any) -> str:
    rows = [
        (code(each["name"]), describe_type(each["schema"]), each.get("description", ""))
        for each in parameters
    ]
    return table(("query parameter", "type", "what it is"), rows)


def _content(content: Mapping[str, Any]) -> str:
    """The message in a body, or the form fields of an upload."""
    words = []
    for media_type, inner in content.items():
        schema = inner.get("schema", {})
        if "$ref" in schema:
            words.append(describe_type(schema))
        elif "properties" in schema:
            words.append(f"{media_type}: {listed(schema['properties'])}")
    return ", ".join(words)


def _messages(schemas: Schemas, names: list[str]) -> Iterator[str]:
    for name in names:
        yield f"### {name}"
        yield schemas.about(name)
        yield schemas.fields(name) or "No fields."
