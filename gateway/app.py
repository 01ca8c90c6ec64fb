"""The gateway: the data plane's own process, and the one port that all public paths answer on."""

from __future__ import annotations

import logging
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from controlplane.config import Settings, get_settings
from gateway.access import authenticate
from gateway.access_log import AccessLog, Lines, Noted
from gateway.embeddings.endpoints import EMBEDDINGS, RERANK
from gateway.errors import ClientGone, GatewayError, error_response, internal
from gateway.exchange import ModelEndpoint
from gateway.gateway import Gateway
from gateway.limits import Limits
from gateway.messages.endpoint import MESSAGES
from gateway.messages.errors import message_error
from gateway.openai import CHAT, COMPLETION, get_model, list_models
from gateway.responses.endpoints import (
    RESPONSES,
    cancel_response,
    delete_response,
    get_response,
    list_input_items,
    list_responses,
)

INFERENCE_PREFIXES = ("/inference/v1", "/v1")
# Inference paths that are no control-plane paths either, so that they are not asked of the API.
OTHER_INFERENCE = ("embeddings", "rerank", "messages", "responses", "audio", "image_generation")
CONTROL_PATHS = ("/verifyApiKey", "/version", "/openapi.json", "/docs", "/docs/{file}")


class GatewayApp(Starlette):
    """Calls the endpoints of `MODEL_ROUTES` by themselves.

    Routing and middleware, which the other paths pass through, would take as long as the work itself.
    """

    def __init__(self, **options: Any) -> None:
        self._lines = Lines()
        super().__init__(middleware=[Middleware(AccessLog, self._lines)], **options)
        self._models = {route.path: AccessLog(Answered(route), self._lines) for route in MODEL_ROUTES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._models.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self
            await endpoint(scope, receive, send)

    def write_lines(self) -> None:
        """Write the lines of the access log that are still held."""
        self._lines.write()


class Answered:
    """A route's endpoint; what it raises is rendered, as long as nothing has been sent."""

    def __init__(self, route: Route) -> None:
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self._route
        assert isinstance(send, Noted)  # the access log's
        try:
            await self._route.app(scope, receive, send)
        except GatewayError as error:
            await rendered(error, scope["path"])(scope, receive, send)
        except ClientGone:
            raise
        except Exception:
            if not send.has_begun:
                await rendered(internal(), scope["path"])(scope, receive, send)
            raise


def create_app(settings: Settings | None = None, limits: Limits | None = None) -> Starlette:
    """The ASGI app; settings come from the environment unless given."""
    if settings is None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    chosen = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: GatewayApp) -> AsyncIterator[None]:
        allow_many_connections()
        gateway = app.state.gateway = Gateway(chosen, limits or Limits())
        gateway.start()
        yield
        await gateway.stop()
        app.write_lines()

    return GatewayApp(
        routes=_routes(),
        lifespan=lifespan,
        exception_handlers={
            GatewayError: _gateway_error,
            HTTPException: _http_error,
            Exception: _unforeseen,
        },
    )


def allow_many_connections() -> None:
    """Each request is a connection on both sides; systems allow few files unless they are asked for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


MODEL_ROUTES = [
    Route(f"{prefix}/{kind.endpoint}", ModelEndpoint(kind), methods=["POST"])
    for prefix in INFERENCE_PREFIXES
    for kind in (CHAT, COMPLETION, EMBEDDINGS, RERANK, MESSAGES, RESPONSES)
]
MESSAGE_PATHS = tuple(f"{prefix}/{MESSAGES.endpoint}" for prefix in INFERENCE_PREFIXES)


def _routes() -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route("/healthz", _alive),
        Route("/readyz", _ready),
        Route("/metrics", _metrics),
    ]
    for prefix in INFERENCE_PREFIXES:
        stored = f"{prefix}/{RESPONSES.endpoint}"
        routes += [
            Route(stored, list_responses, methods=["GET"]),
            Route(f"{stored}/{{response_id}}", get_response, methods=["GET"]),
            Route(f"{stored}/{{response_id}}", delete_response, methods=["DELETE"]),
            Route(f"{stored}/{{response_id}}", NotAllowed("GET, DELETE")),
            *_only("GET", f"{stored}/{{response_id}}/input_items", list_input_items),
            *_only("POST", f"{stored}/{{response_id}}/cancel", cancel_response),
            *_only("GET", f"{prefix}/models", list_models),
            *_only("GET", f"{prefix}/models/{{model:path}}", get_model),
        ]
    for route in MODEL_ROUTES:
        allowed = "GET, POST" if route.path.endswith(f"/{RESPONSES.endpoint}") else "POST"
        routes += [route, Route(route.path, NotAllowed(allowed))]
    routes += [Route(path, ControlPlane()) for path in CONTROL_PATHS]
    return [*routes, Route("/v1/{path:path}", ControlPlane())]


def _only(method: str, path: str, endpoint: Callable[..., Any]) -> list[BaseRoute]:
    """A route for one method, and 405 for the others, which the control plane's wildcard would match."""
    return [Route(path, endpoint, methods=[method]), Route(path, NotAllowed(method))]


class NotAllowed:
    def __init__(self, allowed: str) -> None:
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise HTTPException(405, headers={"Allow": self._allowed})


class ControlPlane:
    """Paths that the API answers; without an API behind this gateway they do not exist here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        relay = scope["app"].state.gateway.relay
        first = scope["path"].removeprefix("/v1/").split("/", 1)[0]
        if relay is None or first in OTHER_INFERENCE:
            raise HTTPException(404)
        await relay.forward(scope, receive, send)


async def _alive(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _ready(request: Request) -> Response:
    if request.app.state.gateway.is_ready:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "not ready"}, status_code=503)


async def _metrics(request: Request) -> Response:
    """The numbers name every account's deployments, so that only the operator may read them."""
    gateway: Gateway = request.app.state.gateway
    key = await authenticate(gateway, request.scope, request.headers)
    operators = (gateway.settings.account_id, gateway.settings.platform_account)
    if key.role != "admin" or key.account_id not in operators:
        raise GatewayError(403, "PERMISSION_DENIED", "metrics are for an admin of the operator's account")
    return Response(gateway.telemetry.render(), media_type="text/plain; version=0.0.4")


def rendered(error: GatewayError, path: str) -> Response:
    """The error in the shape that the clients of a path read."""
    if path.startswith(MESSAGE_PATHS):
        return JSONResponse(message_error(error), status_code=error.status, headers=error.headers)
    return error_response(error)


def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return rendered(error, request.url.path)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, text = {
        404: ("NOT_FOUND", f"no such path: {request.method} {request.url.path}"),
        405: ("METHOD_NOT_ALLOWED", f"{request.method} is not allowed on {request.url.path}"),
    }.get(error.status_code, ("INVALID_ARGUMENT", error.detail))
    refusal = GatewayError(error.status_code, code, text, headers=error.headers)
    return rendered(refusal, request.url.path)


def _unforeseen(request: Request, error: Exception) -> Response:
    """The server logs the error itself, after this is sent."""
    return rendered(internal(), request.url.path)
