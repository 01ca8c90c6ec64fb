"""The control plane: a REST service that records intent and answers at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from sqlalchemy import text

import controlplane.rest.paths  # noqa: F401  registers the path converter that the routes use
from controlplane.config import Settings, get_settings
from controlplane.context import CallerDep, Context, ContextDep
from controlplane.db import AsyncDatabase
from controlplane.node_pools import NODE_POOLS
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
    return JSONResponse({"status": "ok"})


@platform.get("/readyz", include_in_schema=False)
async def ready(ctx: ContextDep) -> Response:
    async with ctx.db.session() as session:
        await session.execute(text("SELECT 1"))
    return JSONResponse({"status": "ok"})


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    database = AsyncDatabase(
        settings.database_url, settings.database_pool_size, {NODE_POOLS: settings.node_pools}
    )
    app.state.context = Context(settings, database, ObjectStore.from_settings(settings), Issuers(settings))
    yield
    await database.close()


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI app; settings come from the environment unless given."""
    chosen = settings or get_settings()

    app = FastAPI(
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
    app.add_middleware(BodyLimit, limit=chosen.request_body_limit, seconds=chosen.request_body_seconds)
    install_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    app.include_router(platform)
    app.include_router(docs_page)
    app.openapi = partial(describe, app)  # type: ignore[method-assign]
    return app
