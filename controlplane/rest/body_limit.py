"""Bounds on request bodies, in bytes and in time, kept while they arrive and not only by what headers say."""

from __future__ import annotations

import asyncio

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.errors import ApiError, Code
from controlplane.rest.responses import error_response


class BodyLimit:
    """ASGI middleware: 413 for a body over the limit, before it is held in memory; 408 for one that is slow.

    A body has `seconds` to arrive. Paths that end with `:upload` stream theirs and keep their own limit of
    bytes; there it is any pause that may last that long.
    """

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self.app = app
        self.limit = limit
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        streamed = scope["path"].endswith(":upload")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not streamed and length.isdigit() and int(length) > self.limit:
            await error_response(self._too_large())(scope, receive, send)
            return
        received, arrived = 0, False
        deadline = asyncio.get_running_loop().time() + self.seconds

        async def bounded() -> Message:
            nonlocal received, arrived
            if arrived:  # what comes next is only the caller's leaving, which may take as long as it likes
                return await receive()
            message = await self._in_time(receive, None if streamed else deadline)
            received += len(message.get("body", b""))
            arrived = not message.get("more_body", False)
            if received > self.limit and not streamed:
                # FastAPI lets this one kind of exception through while it reads a body.
                raise HTTPException(413, self._too_large().message)
            return message

        await self.app(scope, bounded, send)

    async def _in_time(self, receive: Receive, deadline: float | None) -> Message:
        end = deadline or asyncio.get_running_loop().time() + self.seconds
        try:
            async with asyncio.timeout_at(end):
                return await receive()
        except TimeoutError:
            text = f"the request's body did not arrive within {self.seconds:g} seconds"
            raise HTTPException(408, text, headers={"Connection": "close"}) from None

    def _too_large(self) -> ApiError:
        return ApiError(
            Code.OUT_OF_RANGE, f"the request's body is larger than {self.limit} bytes", http_status=413
        )
