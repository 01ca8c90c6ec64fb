"""A bound on request bodies, kept while they arrive and not only by what their header says."""

from __future__ import annotations

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.errors import ApiError, Code
from controlplane.rest.responses import error_response


class BodyLimit:
    """ASGI middleware: 413 for a body over the limit, before it is held in memory.

    Paths that end with `:upload` stream their bodies and keep their own limit.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].endswith(":upload"):
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limit:
            await error_response(self._too_large())(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                # FastAPI lets this one kind of exception through while it reads a body.
                raise HTTPException(413, self._too_large().message)
            return message

        await self.app(scope, bounded, send)

    def _too_large(self) -> ApiError:
        return ApiError(
            Code.OUT_OF_RANGE, f"the request's body is larger than {self.limit} bytes", http_status=413
        )
