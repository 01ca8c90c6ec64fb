"""The control plane: a REST service that records intent and answers at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

import controlplane.rest.paths  # noqa: F401  registers the path converter that the routes use
from controlplane.config import Settings, get_settings
from controlplane.context import CallerDep, Context, ContextDep
from controlplane.db import AsyncDatabase
from controlplane.node_pools import NODE_POOLS
from controlplane.observability.api import ApiNumbers, Observed
from controlplane.observability.health import missing_of_database, on_loop, verdict
from controlplane.observability.logs import set_up_logs
from controlplane.observability.metrics import PoolUse
from controlplane.observability.port import open_port
from controlplane.observability.traces import start_tracing
from controlplane.resources.deployments.autoscaling import SHORTEST_WINDOW_TO_ZERO
from controlplane.resources.routers import ROUTERS
from controlplane.rest.body_limit import BodyLimit
from controlplane.rest.docs_page import router as docs_page
from controlplane.rest.openapi import describe, operation_id
from controlplane.rest.responses import install_error_handlers
from controlplane.rest.router import collection_router
from controlplane.rest.schema import ApiModel, Empty
from controlplane.signin.discovery import Issuers
from controlplane.storage import ObjectStore

platform = collection_router("platform")
VERSION = version("hearth")


class ServerVersion(ApiModel):
    version: str


@platform.get(
    "/verifyApiKey",
    response_model=Empty,
    summary="Check a key; headers name its account, its user, the user's role, and the key's id",
)
async def verify_api_key(caller: CallerDep) -> Response:
    who = {"account-id": caller.account_id, "user-id": caller.user_id, "role": caller.role}
    facts = {**who, "api-key-id": caller.key_id}
    return JSONResponse({}, headers={f"x-fireworks-{name}": value for name, value in facts.items()})


@platform.get("/version", summary="The server's version; no key is needed")
async def get_version() -> ServerVersion:
    return ServerVersion(version=VERSION)


@platform.get("/healthz", include_in_schema=False)
async def alive() -> Response:
    """That it answers says that the event loop turns, which is all of the api's life."""
    return _verdict([])


@platform.get("/readyz", include_in_schema=False)
async def ready(ctx: ContextDep) -> Response:
    return _verdict(await missing_of_database(ctx.db))


def _verdict(missing: list[str]) -> Response:
    status, body = verdict(missing)
    return JSONResponse(body, status_code=status)


class ControlPlane(FastAPI):
    """The app, seen from outside of everything that answers for it."""

    def build_middleware_stack(self) -> ASGIApp:
        return Observed(super().build_middleware_stack(), self.state.numbers, self.state.tracing)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    database = AsyncDatabase(settings.database_url, settings.database_pool_size, platform_info(settings))
    app.state.context = Context(settings, database, ObjectStore.from_settings(settings), Issuers(settings))
    loop, numbers = asyncio.get_running_loop(), app.state.numbers
    numbers.pool = PoolUse("api", database.engine, 2 * settings.database_pool_size)
    port = open_port(
        settings,
        metrics=numbers.render,
        alive=on_loop(loop, _nothing_missing),
        ready=on_loop(loop, lambda: missing_of_database(database)),
    )
    yield
    if port is not None:
        await asyncio.to_thread(port.close)
    await database.close()
    await asyncio.to_thread(app.state.tracing.close)


def platform_info(settings: Settings) -> dict[str, Any]:
    """What services know of the platform through any session."""
    return {
        NODE_POOLS: settings.node_pools,
        SHORTEST_WINDOW_TO_ZERO: timedelta(seconds=settings.shortest_window_to_zero_seconds),
    }


async def _nothing_missing() -> list[str]:
    return []


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI app; settings come from the environment unless given."""
    chosen = settings or get_settings()
    if settings is None:
        set_up_logs(chosen.log_format)

    app = ControlPlane(
        title="Hearth control plane",
        version="1",
        description="Models, datasets, fine-tuning jobs and deployments. Errors are google.rpc.Status.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
    )
    app.state.settings = chosen
    app.state.numbers, app.state.tracing = ApiNumbers(), start_tracing("api")
    app.add_middleware(BodyLimit, limit=chosen.request_body_limit, seconds=chosen.request_body_seconds)
    install_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    app.include_router(platform)
    app.include_router(docs_page)
    app.openapi = partial(describe, app)  # type: ignore[method-assign]
    return app
