"""Errors of the control plane: raised with their code where they happen, rendered once in `rest/`."""

from __future__ import annotations

from enum import Enum
from typing import Any

BAD_REQUEST_TYPE = "type.googleapis.com/google.rpc.BadRequest"


class Code(Enum):
    """google.rpc codes: the number on the wire and the HTTP status that goes with it."""

    CANCELLED = (1, 499)
    UNKNOWN = (2, 500)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    ALREADY_EXISTS = (6, 409)
    PERMISSION_DENIED = (7, 403)
    RESOURCE_EXHAUSTED = (8, 429)
    FAILED_PRECONDITION = (9, 400)
    ABORTED = (10, 409)
    OUT_OF_RANGE = (11, 400)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)
    DATA_LOSS = (15, 500)
    UNAUTHENTICATED = (16, 401)

    @property
    def number(self) -> int:
        return self.value[0]

    @property
    def http_status(self) -> int:
        return self.value[1]


class ApiError(Exception):
    """A refusal that the caller is to see. `details` are google.rpc detail messages (`@type` in each)."""

    def __init__(
        self,
        code: Code,
        message: str,
        details: list[dict[str, Any]] | None = None,
        http_status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or []
        self.http_status = http_status or code.http_status
        self.headers = headers or {}


def invalid(message: str, field: str = "", details: list[dict[str, Any]] | None = None) -> ApiError:
    """INVALID_ARGUMENT; with `field`, the details name it."""
    listed = list(details or [])
    if field:
        listed.insert(0, field_violations([(field, message)]))
    return ApiError(Code.INVALID_ARGUMENT, message, listed)


def field_violations(violations: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "@type": BAD_REQUEST_TYPE,
        "fieldViolations": [{"field": field, "description": text} for field, text in violations],
    }


def not_found(name: str) -> ApiError:
    return ApiError(Code.NOT_FOUND, f"{name} not found")


def already_exists(name: str) -> ApiError:
    return ApiError(Code.ALREADY_EXISTS, f"{name} already exists")


def failed_precondition(message: str) -> ApiError:
    return ApiError(Code.FAILED_PRECONDITION, message)


def permission_denied(message: str) -> ApiError:
    return ApiError(Code.PERMISSION_DENIED, message)


def unimplemented(message: str) -> ApiError:
    """A part of the API that this server does not have, by name.

    400 and not 501: clients take a 5xx for a server in trouble, and try again.
    """
    return ApiError(Code.UNIMPLEMENTED, message, http_status=400)
