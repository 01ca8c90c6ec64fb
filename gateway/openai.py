"""The endpoints that OpenAI's clients ask for text, and the models that they can ask."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.access import authenticate, current_snapshot, find_route
from gateway.dialect import translate_chat, translate_completion
from gateway.exchange import Kind
from gateway.gateway import Gateway
from gateway.resolver import reachable_models
from gateway.snapshot import Route
from gateway.voices import TextVoice

CHAT = Kind("chat/completions", translate_chat, TextVoice, "chat/completions", needs_chat=True)
COMPLETION = Kind("completions", translate_completion, TextVoice, "completions")


async def list_models(request: Request) -> Response:
    gateway: Gateway = request.app.gateway
    key = await authenticate(gateway, request.scope, request.headers)
    routes = reachable_models(current_snapshot(gateway), key.account_id)
    return JSONResponse({"object": "list", "data": [model_card(route) for route in routes]})


async def get_model(request: Request) -> Response:
    gateway: Gateway = request.app.gateway
    key = await authenticate(gateway, request.scope, request.headers)
    return JSONResponse(model_card(await find_route(gateway, key, request.path_params["model"])))


def model_card(route: Route) -> dict[str, Any]:
    model = route.model
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.create_time.timestamp()),
        "owned_by": model.account_id,
        "kind": model.kind,
        "supports_chat": model.supports_chat,
        "supports_image_input": model.supports_image_input,
        "supports_tools": model.supports_tools,
        "context_length": model.context_length,
    }
