"""One short line for each request: no prompts, no keys, no query strings."""

from __future__ import annotations

import logging
import time
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ClientGone

log = logging.getLogger("hearth.gateway.access")

QUIET = ("/healthz", "/readyz", "/metrics")
CLIENT_GONE = 499


class AccessLog:
    """ASGI middleware: logs and counts requests. Endpoints add to `scope["notes"]` what they learn."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes = scope["notes"] = {}
        started = time.monotonic()
        status = CLIENT_GONE

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientGone:
            notes["client"] = "gone"
        except Exception:
            status = 500
            raise
        finally:
            self._count(scope, status)
            self._log(scope, status, time.monotonic() - started, notes)

    def _count(self, scope: Scope, status: int) -> None:
        # The route's own pattern, so that callers cannot make up labels without end.
        route = scope.get("route")
        endpoint = route.path if route is not None else "none"
        scope["app"].state.gateway.telemetry.requests.labels(endpoint, str(status)).inc()

    def _log(self, scope: Scope, status: int, seconds: float, notes: dict[str, str]) -> None:
        if scope["path"] in QUIET:
            return
        known = "".join(f" {name}={value}" for name, value in notes.items())
        path = quote(scope["path"], safe="/:")[:200]
        log.info("%s %s %s %.0fms%s", scope["method"], path, status, seconds * 1000, known)
