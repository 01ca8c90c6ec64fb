"""`responses`: asked as OpenAI's newer clients do, and what is stored of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.access import authenticate
from gateway.background import DATABASE_ERRORS
from gateway.checks import string
from gateway.errors import invalid, too_late, unavailable
from gateway.exchange import Kind
from gateway.gateway import Gateway
from gateway.incoming import Incoming
from gateway.keys import KnownKey
from gateway.responses.answer import ResponseVoice
from gateway.responses.request import translate_response
from gateway.sending import BoundedSend

LISTED, MOST_LISTED = 20, 100


async def prepare(gateway: Gateway, key: KnownKey, sent: dict[str, Any], hold: Callable[[int], None]) -> Kind:
    """With the items of the responses that the new one goes on from. `hold` counts their bytes."""
    if sent.get("store") is not False:
        gateway.responses.require_room()
        gateway.responses.usage.require_room(*gateway.account_limits.stored(key.account_id))
    previous = sent.get("previous_response_id")
    if previous is None:
        return RESPONSES
    with reading():
        before = string("previous_response_id", previous)
        chain, size = await gateway.responses.chain(key.account_id, before)
    hold(size)
    history = [item for each in chain for item in (*each.input, *each.body["output"]) if not _is_torso(item)]
    return replace(RESPONSES, translate=partial(translate_response, history=history))


RESPONSES = Kind(
    "responses", translate_response, ResponseVoice, "chat/completions", needs_chat=True, prepare=prepare
)


class StoredEndpoint:
    """An ASGI endpoint for what is stored, within the bounds of any other request."""

    def __init__(self, answer: Callable[[Request, Gateway, KnownKey], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: Gateway = scope["app"].gateway
        request = Request(scope)
        key = await authenticate(gateway, scope, request.headers)
        with gateway.admission.enter(key.account_id, key.key_id, key.concurrent_requests) as place:
            incoming = Incoming(receive, gateway.timers)
            await self._skip_body(incoming, gateway.limits.body_seconds)
            sending = BoundedSend(send, gateway.timers, gateway.limits.send_seconds, incoming.give_up)

            async def respond() -> None:
                response = await self._answer(request, gateway, key)
                place.hold(len(response.body))
                await response(scope, receive, sending)

            try:
                await incoming.until_gone(respond())
            finally:
                sending.close()

    async def _skip_body(self, incoming: Incoming, seconds: float) -> None:
        """Nothing that is asked for here stands in a body."""
        try:
            async with asyncio.timeout(seconds):
                await incoming.skip_body()
        except TimeoutError:
            raise too_late() from None


async def list_responses(request: Request, gateway: Gateway, key: KnownKey) -> Response:
    limit, after, before = _page(request)
    with reading():
        found, more = await gateway.responses.page(key.account_id, limit, after, before)
    return _listed(found, more)


async def get_response(request: Request, gateway: Gateway, key: KnownKey) -> Response:
    if request.query_params.get("stream") == "true":
        raise invalid("'stream': a stored response is not streamed again", "stream")
    with reading():
        found = await gateway.responses.get(key.account_id, request.path_params["response_id"])
    return JSONResponse(found.body)


async def list_input_items(request: Request, gateway: Gateway, key: KnownKey) -> Response:
    """All that was asked with the response itself; the newest first unless `order` is `asc`."""
    with reading():
        found = await gateway.responses.get(key.account_id, request.path_params["response_id"])
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("'order' must be asc or desc", "order")
    items = found.input if order == "asc" else found.input[::-1]
    limit, after, before = _page(request)
    ids = [item["id"] for item in items]
    for name, mark in (("after", after), ("before", before)):
        if mark is not None and mark not in ids:
            raise invalid(f"'{name}' is none of the response's items", name)
    start = ids.index(after) + 1 if after else 0
    end = ids.index(before) if before else len(items)
    return _listed(items[start : min(start + limit, end)], start + limit < end)


async def delete_response(request: Request, gateway: Gateway, key: KnownKey) -> Response:
    with reading():
        await gateway.responses.delete(key.account_id, request.path_params["response_id"])
    return JSONResponse({"message": "Response deleted successfully"})


async def cancel_response(request: Request, gateway: Gateway, key: KnownKey) -> Response:
    """There are no responses in the background, so that none can be cancelled."""
    with reading():
        await gateway.responses.get(key.account_id, request.path_params["response_id"])
    raise invalid("only responses in the background can be cancelled, and this one was not")


def _is_torso(item: dict[str, Any]) -> bool:
    """A call that was cut off in the middle of its arguments."""
    return item["type"] == "function_call" and item.get("status") == "incomplete"


@contextmanager
def reading() -> Iterator[None]:
    try:
        yield
    except DATABASE_ERRORS:
        raise unavailable("UNAVAILABLE", "stored responses cannot be read at the moment; try again") from None


def _page(request: Request) -> tuple[int, str | None, str | None]:
    given = request.query_params.get("limit", str(LISTED))
    good = given.isascii() and given.isdigit() and len(given) < 10
    if not (good and 1 <= int(given) <= MOST_LISTED):
        raise invalid(f"'limit' must be an integer from 1 to {MOST_LISTED}", "limit")
    return int(given), request.query_params.get("after"), request.query_params.get("before")


def _listed(found: list[dict[str, Any]], more: bool) -> Response:
    return JSONResponse(
        {
            "object": "list",
            "data": found,
            "has_more": more,
            "first_id": found[0]["id"] if found else None,
            "last_id": found[-1]["id"] if found else None,
        }
    )
