"""Errors of the gateway: raised where they happen, rendered once, in the shape that OpenAI clients read."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

NOT_FOUND_TEXT = "Model not found, inaccessible, and/or not deployed"


class GatewayError(Exception):
    """A refusal that the caller is to see: `{"error": {message, type, param, code}}` with a status."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind or kind_of_status(status)
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class ClientGone(Exception):
    """The caller closed the connection; nobody is left to answer."""


def kind_of_status(status: int) -> str:
    """The error type that OpenAI clients expect with a status."""
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def error_response(error: GatewayError) -> JSONResponse:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


def invalid(message: str, param: str | None = None) -> GatewayError:
    return GatewayError(400, "INVALID_ARGUMENT", message, param=param)


def unsupported(param: str, hint: str = "") -> GatewayError:
    """A documented parameter that this platform cannot honour: refused rather than ignored."""
    message = f"'{param}' is not supported" + (f": {hint}" if hint else "")
    return GatewayError(400, "UNSUPPORTED_PARAMETER", message, param=param)


def unauthenticated(message: str) -> GatewayError:
    return GatewayError(401, "UNAUTHENTICATED", message, headers={"WWW-Authenticate": "Bearer"})


def permission_denied(message: str) -> GatewayError:
    return GatewayError(403, "PERMISSION_DENIED", message)


def model_not_found() -> GatewayError:
    """The same words whether the model is absent, another tenant's, or not deployed."""
    return GatewayError(404, "NOT_FOUND", NOT_FOUND_TEXT, param="model", kind="error")


def too_large(limit: int) -> GatewayError:
    return GatewayError(413, "REQUEST_TOO_LARGE", f"the request's body is larger than {limit} bytes")


def too_late() -> GatewayError:
    return GatewayError(408, "REQUEST_TIMEOUT", "the request's body did not arrive in time")


def unavailable(code: str, message: str, retry_after: int = 1) -> GatewayError:
    return GatewayError(503, code, message, headers={"Retry-After": str(retry_after)})


def key_used_up(key_id: str, field: str, most: int, rest: str, wait: int) -> GatewayError:
    """A limit that the key itself has; `rest` reads on after the number."""
    text = f"{field} of the API key {key_id} is used up: it may make {most:,} {rest}"
    return GatewayError(429, "RESOURCE_EXHAUSTED", text, headers={"Retry-After": str(wait)})


def internal() -> GatewayError:
    return GatewayError(500, "INTERNAL", "internal error; the server's log has the cause")
