"""Errors in the shape that Anthropic's clients read."""

from __future__ import annotations

from typing import Any

from gateway.errors import GatewayError

KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def message_error(error: GatewayError, request_id: str | None = None) -> dict[str, Any]:
    """`{"type": "error", "error": {type, message}, "request_id"}`."""
    other = "api_error" if error.status >= 500 else "invalid_request_error"
    kind = KINDS.get(error.status, other)
    return {
        "type": "error",
        "error": {"type": kind, "message": error.message},
        "request_id": request_id,
    }
