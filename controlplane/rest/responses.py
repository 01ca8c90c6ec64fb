"""How messages and errors are written on the wire: once, for every endpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic.alias_generators import to_camel
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from controlplane.errors import ApiError, Code, field_violations, invalid
from controlplane.names import InvalidName
from controlplane.resources.audit_logs.refusals import record_refusal
from controlplane.rest.etags import etag
from controlplane.rest.masks import apply_read_mask
from controlplane.rest.paging import Page
from controlplane.rest.schema import ApiModel
from controlplane.storage import StorageUnavailable

log = logging.getLogger(__name__)

DEADLOCKS = ("40P01", "40001")
"""SQLSTATEs of transactions that PostgreSQL gave up for another one's sake."""
QUERY_CANCELED = "57014"
"""The SQLSTATE of a statement that took longer than its transaction allows (`rest/time_limit.py`)."""
CODE_OF_HTTP_STATUS = {
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    408: Code.DEADLINE_EXCEEDED,
    413: Code.OUT_OF_RANGE,
}


class WireResponse(Response):
    """JSON with its keys sorted, as the API writes it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def message_dict(message: ApiModel) -> dict[str, Any]:
    """A message as JSON values: camelCase, unset messages left out, unset scalars present."""
    return message.model_dump(mode="json", by_alias=True, exclude_none=True)


def reply(message: ApiModel, read_mask: str | None = None) -> WireResponse:
    """A message; a resource, which is one with a name, comes with its version as `ETag`."""
    headers = {"ETag": etag(message)} if getattr(message, "name", "") else None
    return WireResponse(apply_read_mask(message, message_dict(message), read_mask), headers=headers)


def reply_page(
    key: str, messages: Sequence[ApiModel], page: Page, read_mask: str | None = None
) -> WireResponse:
    """A list: the collection's own key, the next page's token, and how many there are in all."""
    items = [apply_read_mask(message, message_dict(message), read_mask) for message in messages]
    return WireResponse({key: items, "nextPageToken": page.next_token, "totalSize": page.total_size})


def error_response(error: ApiError) -> JSONResponse:
    body = {"code": error.code.number, "message": error.message, "details": error.details}
    return JSONResponse(body, status_code=error.http_status, headers=error.headers)


def unavailable(what: str) -> ApiError:
    text = f"{what} cannot be reached now; try again in a moment"
    return ApiError(Code.UNAVAILABLE, text, headers={"Retry-After": "2"})


def database_error(error: Exception) -> ApiError:
    """What a failure of the database means to the caller, who may try again in any case."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if state in DEADLOCKS:
        return ApiError(Code.ABORTED, "somebody else changed the same resources at this moment; try again")
    if state == QUERY_CANCELED:
        text = "the database took too long over this; narrow the filter, or ask for fewer days"
        return ApiError(Code.DEADLINE_EXCEEDED, text)
    return unavailable("the database")


def describe_validation(problems: list[dict[str, Any]]) -> ApiError:
    """pydantic's findings as one INVALID_ARGUMENT: the first in words, all of them in the details."""
    violations = [_violation(problem) for problem in problems[:100]]
    field, text = violations[0]
    message = text if not field or text.startswith("unknown field") else f"{field}: {text}"
    return ApiError(Code.INVALID_ARGUMENT, message, [field_violations(violations)])


def _violation(problem: dict[str, Any]) -> tuple[str, str]:
    place = problem["loc"]
    source, inner = (place[0], place[1:]) if place and place[0] in ("body", "query", "path") else ("", place)
    field = ".".join(str(part) for part in inner)
    if problem["type"] == "json_invalid":
        return "", f"the body is not valid JSON: {problem.get('ctx', {}).get('error', 'malformed')}"
    if problem["type"] == "extra_forbidden":
        return field, f'unknown field "{field}"'
    if problem["type"] == "missing" and not field:
        return "", f"the request's {source or 'body'} is missing"
    if problem["type"] == "missing":
        return ".".join(to_camel(part) if "_" in part else part for part in field.split(".")), "is required"
    return field, problem["msg"].removeprefix("Value error, ")


def allowed_methods(request: Request) -> list[str]:
    """The methods of every route with this path: each route is one method's."""
    return sorted(
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    )


def install_error_handlers(app: FastAPI) -> None:
    """Every error leaves as google.rpc.Status; what is unforeseen is logged and said without its inside."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        if error.code is Code.PERMISSION_DENIED:
            await record_refusal(request, error)
        return error_response(error)

    @app.exception_handler(InvalidName)
    async def invalid_name(_: Request, error: InvalidName) -> JSONResponse:
        return error_response(ApiError(Code.INVALID_ARGUMENT, str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(describe_validation(list(error.errors())))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = CODE_OF_HTTP_STATUS.get(error.status_code, Code.INVALID_ARGUMENT)
        text = {
            404: f"no such path: {request.method} {request.url.path}",
            405: f"{request.method} is not allowed on {request.url.path}",
            400: "the body is not valid JSON",
        }.get(error.status_code, str(error.detail))
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(allowed_methods(request))
        return error_response(ApiError(code, text, http_status=error.status_code, headers=headers))

    @app.exception_handler(StorageUnavailable)
    async def no_storage(request: Request, error: StorageUnavailable) -> JSONResponse:
        log.error("%s %s failed: %s", request.method, request.url.path, error)
        return error_response(unavailable("the object store"))

    @app.exception_handler(DataError)
    async def unstorable(request: Request, error: DataError) -> JSONResponse:
        log.warning(
            "%s %s holds what the database does not take: %s", request.method, request.url.path, error
        )
        return error_response(invalid("the request holds a value that cannot be stored"))

    @app.exception_handler(OperationalError)
    @app.exception_handler(PoolTimeoutError)
    async def no_database(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed: %s", request.method, request.url.path, error)
        return error_response(database_error(error))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(ApiError(Code.INTERNAL, "internal error; the server's log has the cause"))
