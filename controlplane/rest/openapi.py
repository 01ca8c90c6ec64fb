"""`/openapi.json`: what FastAPI makes of the endpoints, with examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from controlplane.context import authenticated
from controlplane.permissions import Permission

INTRODUCTION = """
Models, datasets, fine-tuning jobs, deployments, and who may use them. Every path answers on the gateway's
address.

Bodies are JSON; requests may spell fields in camelCase or snake_case, answers are in camelCase. Errors are
`google.rpc.Status`. `docs/api.md` tells the conventions, what each role may do, and every field.
"""

# What stands for a value where the endpoint gives none, by the field's name; `name` goes by the message.
EXAMPLES: dict[str, Any] = {
    "account_id": "acme",
    "user_id": "ada",
    "model_id": "my-model",
    "dataset_id": "my-data",
    "deployment_id": "12ab34cd",
    "deployed_model_id": "my-model-12ab34cd",
    "job_id": "my-job",
    "displayName": "My first one",
    "email": "ada@acme.example",
    "baseModel": "accounts/fireworks/models/llama-v3p1-8b-instruct",
    "model": "accounts/acme/models/my-model",
    "deployment": "accounts/acme/deployments/12ab34cd",
    "dataset": "accounts/acme/datasets/my-data",
    "updateMask": "displayName",
    "readMask": "name,state",
    "pageSize": 50,
}
BY_FORMAT = {"date-time": "2030-01-31T12:00:00Z", "google-duration": "600s", "int64": "1", "binary": ""}
BY_TYPE: dict[str, Any] = {
    "string": "",
    "integer": 1,
    "number": 0.5,
    "boolean": True,
    "array": [],
    "object": {},
}

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a sign-in's access token."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}


def operation_id(route: APIRoute) -> str:
    """A name for clients that are made from the document: `models_create_model`."""
    return f"{route.tags[0]}_{route.name}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=INTRODUCTION,
            routes=app.routes,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        )
        _drop_validation_errors(document)
        _add_access(document, app)
        for parameter in _parameters(document):
            # FastAPI's titles are the names again, worse spelt.
            parameter["schema"].pop("title", None)
            _add_example(parameter, parameter["name"], parameter["schema"])
        for schema in document["components"]["schemas"].values():
            for name, field in schema.get("properties", {}).items():
                field.pop("title", None)
                _add_example(field, name, field)
        app.openapi_schema = document
    return app.openapi_schema


def permission_of(route: APIRoute) -> Permission | None:
    """What a caller's role needs for an endpoint; None where any key will do, or none is needed."""
    found = (getattr(dependant.call, "permission", None) for dependant in _dependants(route))
    return next((permission for permission in found if permission is not None), None)


def needs_key(route: APIRoute) -> bool:
    return any(dependant.call is authenticated for dependant in _dependants(route))


def _dependants(route: APIRoute) -> Iterator[Dependant]:
    pending = [route.dependant]
    while pending:
        dependant = pending.pop()
        yield dependant
        pending += dependant.dependencies


def _add_access(document: dict[str, Any], app: FastAPI) -> None:
    """Which operations need a key, and which permission of its user's role."""
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    routes = {route.unique_id: route for route in app.routes if isinstance(route, APIRoute)}
    for item in document["paths"].values():
        for operation in item.values():
            route = routes[operation["operationId"]]
            if needs_key(route):
                operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
            if permission := permission_of(route):
                operation["x-permission"] = permission.name


def _drop_validation_errors(document: dict[str, Any]) -> None:
    """FastAPI's own shape of errors, which no endpoint answers with."""
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _parameters(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        for operation in item.values():
            yield from operation.get("parameters", [])


def _add_example(target: dict[str, Any], name: str, schema: dict[str, Any]) -> None:
    if "example" not in target and "examples" not in target and "examples" not in schema:
        found = example_of(name, schema)
        if found is not None:
            target["example"] = found


def example_of(name: str, schema: dict[str, Any]) -> Any:
    """What the field may hold; None where its default or the message that it refers to says it as well."""
    if name in EXAMPLES:
        return EXAMPLES[name]
    choices: list[dict[str, Any]] = schema.get("anyOf", [schema])
    shape = next((choice for choice in choices if choice.get("type") != "null"), schema)
    if "enum" in shape:
        return shape["enum"][-1]
    if shape.get("format") in BY_FORMAT:
        return BY_FORMAT[shape["format"]]
    return None if "default" in schema else BY_TYPE.get(shape.get("type", ""))
