"""The routes of the collections: how bodies and queries are read, and what `/openapi.json` says of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterator
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, create_model

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


ERRORS: dict[int | str, dict[str, Any]] = {"default": {"model": RpcStatus, "description": "An error."}}


def collection_router(tag: str, prefix: str = "") -> APIRouter:
    """A router whose endpoints follow the rules of this module."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=WireRoute, responses=ERRORS)


@lru_cache(maxsize=64)
def list_of(resource: type[ApiModel], key: str) -> type[BaseModel]:
    """What a list endpoint answers: the collection's own key, the next page's token, and the total."""
    fields: dict[str, Any] = {
        key: (list[resource], Field()),  # type: ignore[valid-type]
        "nextPageToken": (str, Field(description="Empty at the end of the list.")),
        "totalSize": (int, Field(description="How many there are on all pages.")),
    }
    return create_model(f"List{key[0].upper()}{key[1:]}Response", **fields)


class WireRoute(APIRoute):
    """An endpoint that knows its query parameters and reads JSON as strictly as protobuf's JSON does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        known = frozenset(query_parameters(self.dependant))

        async def checked(request: Request) -> Response:
            refuse_unknown_parameters(request, known)
            return await answer(WireRequest(request.scope, request.receive))

        return checked


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


def refuse_unknown_parameters(request: Request, known: frozenset[str]) -> None:
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise invalid(f'unknown query parameter "{name}"', name)
        if UNSTORABLE.search(value):
            raise invalid(f"{name} has a NUL character, or half of a surrogate pair", name)


def read_json(body: bytes) -> Any:
    """JSON in UTF-8 with no key twice in an object, only finite numbers, and text that can be stored."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("it is not UTF-8", "", error.start) from None
    found = json.loads(text, object_pairs_hook=_once_each, parse_constant=_refuse_constant)
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
