"""The routes of the collections: how bodies and queries are read, and what `/openapi.json` says of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, create_model
from pydantic.alias_generators import to_snake

from controlplane.db import UNSTORABLE
from controlplane.errors import invalid
from controlplane.rest.schema import ApiModel


class RpcStatus(BaseModel):
    """google.rpc.Status: what every error looks like."""

    code: Annotated[int, Field(description="The google.rpc code.")]
    message: str
    details: Annotated[
        list[dict[str, Any]], Field(description="google.rpc detail messages; `@type` says which each is.")
    ]


ABOUT_ERRORS = {
    400: "The request is malformed (INVALID_ARGUMENT), a state forbids it (FAILED_PRECONDITION), or this "
    "server does not have that part of the API (UNIMPLEMENTED).",
    401: "No valid API key (UNAUTHENTICATED).",
    403: "The caller's role does not allow it (PERMISSION_DENIED).",
    404: "There is no such resource, or it is another account's (NOT_FOUND).",
    408: "The body did not arrive in time (DEADLINE_EXCEEDED).",
    409: "The name is taken (ALREADY_EXISTS), or somebody else was faster (ABORTED).",
    412: "If-Match names another version of the resource (ABORTED).",
    413: "The body is too large (OUT_OF_RANGE).",
    429: "Over a quota (RESOURCE_EXHAUSTED).",
    500: "A mistake of the server, whose log has the cause (INTERNAL).",
    503: "The database or the object store cannot be reached; try again (UNAVAILABLE).",
    504: "It took too long (DEADLINE_EXCEEDED).",
}
ALWAYS = (400, 401, 403, 404, 500, 503, 504)
ON_CHANGE = (408, 409, 412, 413, 429)


def error_responses(methods: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    """What `/openapi.json` says of an endpoint's errors."""
    codes = ALWAYS if set(methods) <= {"GET", "HEAD"} else sorted((*ALWAYS, *ON_CHANGE))
    return {code: {"model": RpcStatus, "description": ABOUT_ERRORS[code]} for code in codes}


def collection_router(tag: str, prefix: str = "") -> APIRouter:
    """A router whose endpoints follow the rules of this module."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=WireRoute)


ABOUT_TOTAL_SIZE = (
    "How many there are on all pages: exact up to 10,000, and beyond that the database's own estimate."
)


@lru_cache(maxsize=64)
def list_of(resource: type[ApiModel], key: str) -> type[BaseModel]:
    """What a list endpoint answers: the collection's own key, the next page's token, and the total."""
    fields: dict[str, Any] = {
        key: (list[resource], Field()),  # type: ignore[valid-type]
        "nextPageToken": (str, Field(description="Empty at the end of the list.")),
        "totalSize": (int, Field(description=ABOUT_TOTAL_SIZE)),
    }
    return create_model(f"List{key[0].upper()}{key[1:]}Response", **fields)


class WireRoute(APIRoute):
    """An endpoint that knows its query parameters and reads JSON as strictly as protobuf's JSON does."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["responses"] = error_responses(options.get("methods") or ()) | (
            options.get("responses") or {}
        )
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        spellings = both_spellings(query_parameters(self.dependant))
        has_body = self.body_field is not None

        async def checked(request: Request) -> Response:
            request.scope["query_string"] = read_query(request, spellings)
            if has_body:
                request.scope["headers"] = as_json(request.scope["headers"])
            return await answer(WireRequest(request.scope, request.receive))

        return checked


def as_json(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Bodies are JSON whatever their header says, as `curl -d` says something else unless it is told."""
    others = [(name, value) for name, value in headers if name != b"content-type"]
    return [*others, (b"content-type", b"application/json")]


class WireRequest(Request):
    async def json(self) -> Any:
        self.state.json_body = read_json(await self.body())
        return self.state.json_body


def query_parameters(dependant: Any) -> Iterator[str]:
    """The names of an endpoint's query parameters, those of its dependencies too."""
    for parameter in dependant.query_params:
        yield parameter.alias
    for inner in dependant.dependencies:
        yield from query_parameters(inner)


def both_spellings(names: Iterable[str]) -> dict[str, str]:
    """camelCase and snake_case, as clients may spell them, → the parameter's own name."""
    return {spelling: name for name in names for spelling in (to_snake(name), name)}


def read_query(request: Request, spellings: Mapping[str, str]) -> bytes:
    """The query with every parameter under its own name; 400 for what means nothing or is there twice."""
    found: dict[str, str] = {}
    for spelling, value in request.query_params.multi_items():
        name = spellings.get(spelling)
        if name is None:
            raise invalid(f'unknown query parameter "{spelling}"', spelling)
        if name in found:
            raise invalid(f"{name} is there twice", name)
        if UNSTORABLE.search(value):
            raise invalid(f"{name} has a NUL character, or half of a surrogate pair", name)
        found[name] = value
    return urlencode(found).encode()


def read_json(body: bytes) -> Any:
    """JSON in UTF-8 with no key twice in an object, only finite numbers, and text that can be stored."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("it is not UTF-8", "", error.start) from None
    try:
        found = json.loads(text, object_pairs_hook=_once_each, parse_constant=_refuse_constant)
    except json.JSONDecodeError:
        raise
    except ValueError:
        raise json.JSONDecodeError("a number has thousands of digits", "", 0) from None
    if "\\u" in text:  # raw ones do not pass: JSON has no control characters, and UTF-8 no surrogates
        _check_text(found)
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise json.JSONDecodeError(f"the key {json.dumps(twice)} is there twice", "", 0)
    return found


def _refuse_constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is not a number of JSON", "", 0)


def _check_text(found: Any) -> None:
    pending = [found]
    while pending:
        value = pending.pop()
        if isinstance(value, str) and UNSTORABLE.search(value):
            raise json.JSONDecodeError("a text has a NUL character, or half of a surrogate pair", "", 0)
        if isinstance(value, dict):
            pending += [*value, *value.values()]
        elif isinstance(value, list):
            pending += value
