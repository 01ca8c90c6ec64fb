"""The gateway: the data plane's own process, and the one port that all public paths answer on."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import threading
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
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from controlplane.config import Settings, get_settings
from controlplane.observability.health import on_loop, verdict
from controlplane.observability.logs import Format, set_up_logs
from controlplane.observability.metrics import CONTENT_TYPE
from controlplane.observability.port import WatchPort, open_port
from controlplane.observability.requests import Noted
from gateway.access import authenticate
from gateway.access_log import AccessLog, Lines
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
    StoredEndpoint,
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

    Routing and middleware, which the other paths pass through, would take as long as the work itself. These
    are also told who has called a proxy before this gateway, if `FORWARDED_ALLOW_IPS` names it.
    """

    gateway: Gateway
    """From its start on."""

    def __init__(self, log_format: Format, **options: Any) -> None:
        self._lines = Lines(log_format)
        super().__init__(middleware=[Middleware(AccessLog, self._lines)], **options)
        # uvicorn has types of its own for what Starlette calls the same.
        routed: Any = super().__call__
        self._others: Any = ProxyHeadersMiddleware(routed, os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"))
        self._models = {route.path: AccessLog(Answered(route), self._lines) for route in MODEL_ROUTES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._models.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            await self._others(scope, receive, send)
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


def create_app(settings: Settings | None = None, limits: Limits | None = None) -> GatewayApp:
    """The ASGI app; settings come from the environment unless given."""
    chosen = settings or get_settings()
    if settings is None:
        set_up_logs(chosen.log_format)
        collect_rarely()

    @asynccontextmanager
    async def lifespan(app: GatewayApp) -> AsyncIterator[None]:
        allow_many_connections()
        gateway = app.gateway = Gateway(chosen, limits or Limits())
        gateway.start()
        port = watched(gateway)
        say_when_stopping(gateway)
        yield
        if port is not None:
            await asyncio.to_thread(port.close)
        await gateway.stop()
        app.write_lines()

    return GatewayApp(
        chosen.log_format,
        routes=_routes(),
        lifespan=lifespan,
        exception_handlers={
            GatewayError: _gateway_error,
            HTTPException: _http_error,
            Exception: _unforeseen,
        },
    )


def watched(gateway: Gateway) -> WatchPort | None:
    loop = asyncio.get_running_loop()

    async def missing_for_life() -> list[str]:
        return gateway.missing_for_life()

    async def missing_for_work() -> list[str]:
        return gateway.missing_for_work()

    return open_port(
        gateway.settings,
        metrics=gateway.telemetry.render,
        alive=on_loop(loop, missing_for_life),
        ready=on_loop(loop, missing_for_work),
    )


def say_when_stopping(gateway: Gateway) -> None:
    """Not ready from the signal on, while the server still answers what it has begun."""
    if threading.current_thread() is not threading.main_thread():
        return
    stop = signal.getsignal(signal.SIGTERM)

    def stopping(number: int, frame: Any) -> None:
        gateway.is_draining = True
        if callable(stop):
            stop(number, frame)

    signal.signal(signal.SIGTERM, stopping)


def allow_many_connections() -> None:
    """Each request is a connection on both sides; systems allow few files unless they are asked for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def collect_rarely() -> None:
    """What has been imported stays, so that the garbage collector need not go through it again and again."""
    gc.freeze()
    gc.set_threshold(10_000)


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
            Route(stored, StoredEndpoint(list_responses), methods=["GET"]),
            Route(f"{stored}/{{response_id}}", StoredEndpoint(get_response), methods=["GET"]),
            Route(f"{stored}/{{response_id}}", StoredEndpoint(delete_response), methods=["DELETE"]),
            Route(f"{stored}/{{response_id}}", NotAllowed("GET, DELETE")),
            *_only("GET", f"{stored}/{{response_id}}/input_items", StoredEndpoint(list_input_items)),
            *_only("POST", f"{stored}/{{response_id}}/cancel", StoredEndpoint(cancel_response)),
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
        relay = scope["app"].gateway.relay
        first = scope["path"].removeprefix("/v1/").split("/", 1)[0]
        if relay is None or first in OTHER_INFERENCE:
            raise HTTPException(404)
        await relay.forward(scope, receive, send)


async def _alive(request: Request) -> Response:
    return _verdict(request.app.gateway.missing_for_life())


async def _ready(request: Request) -> Response:
    return _verdict(request.app.gateway.missing_for_work())


def _verdict(missing: list[str]) -> Response:
    status, body = verdict(missing)
    return JSONResponse(body, status_code=status)


async def _metrics(request: Request) -> Response:
    """The numbers name every account's deployments, so that only the operator may read them."""
    gateway: Gateway = request.app.gateway
    key = await authenticate(gateway, request.scope, request.headers)
    operators = (gateway.settings.account_id, gateway.settings.platform_account)
    if key.role != "admin" or key.account_id not in operators:
        raise GatewayError(403, "PERMISSION_DENIED", "metrics are for an admin of the operator's account")
    return Response(gateway.telemetry.render(), media_type=CONTENT_TYPE)


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
