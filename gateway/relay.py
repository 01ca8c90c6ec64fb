"""Control-plane paths, passed on to the API in both directions as they come: nothing is held in memory."""

from __future__ import annotations

import logging

import aiohttp
from multidict import CIMultiDict
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send
from yarl import URL

from controlplane.errors import Code
from gateway.errors import ClientGone
from gateway.incoming import Incoming
from gateway.limits import Limits

log = logging.getLogger("hearth.gateway")

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
NOT_FORWARDED = HOP_BY_HOP | {"host", "expect"}


class Relay:
    """Forwards a request to the API at `api_url` and its answer back."""

    def __init__(self, api_url: str, limits: Limits) -> None:
        self._api_url = api_url
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=limits.connect_seconds, sock_read=limits.silence_seconds
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=["User-Agent", "Content-Type", "Accept", "Accept-Encoding"],
        )

    async def close(self) -> None:
        await self._client.close()

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(receive)
        headers = Headers(scope=scope)
        has_body = "content-length" in headers or "transfer-encoding" in headers
        if not has_body:
            await incoming.skip_body()
        await incoming.until_gone(self._forward(scope, headers, incoming if has_body else None, send))

    async def _forward(self, scope: Scope, headers: Headers, body: Incoming | None, send: Send) -> None:
        try:
            response = await self._client.request(
                scope["method"],
                self._url(scope),
                headers=_forwarded(scope, headers),
                data=body.chunks() if body else None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            if body is not None and body.is_gone:
                raise ClientGone from None
            log.warning("the API cannot be reached: %s", str(error) or type(error).__name__)
            await _unreachable()(scope, incoming_ended, send)
            return
        try:
            await _send_back(response, send)
        finally:
            response.close()

    def _url(self, scope: Scope) -> URL:
        """The same path and query, byte for byte."""
        path = scope.get("raw_path") or scope["path"].encode()
        query = scope.get("query_string", b"")
        return URL(self._api_url + (path + (b"?" + query if query else b"")).decode("latin-1"), encoded=True)


def _forwarded(scope: Scope, headers: Headers) -> CIMultiDict[str]:
    """The caller's headers without those of its own connection, and who and what it asked."""
    passed = CIMultiDict((name, value) for name, value in headers.items() if name not in NOT_FORWARDED)
    passed["x-forwarded-for"] = _forwarded_for(scope, headers.get("x-forwarded-for", ""))
    passed["x-request-id"] = scope["notes"]["request_id"]
    if traceparent := scope["trace"].traceparent:
        passed["traceparent"] = traceparent
    passed.setdefault("x-forwarded-proto", scope["scheme"])
    passed.setdefault("x-forwarded-host", headers.get("host", ""))
    return passed


def _forwarded_for(scope: Scope, before: str) -> str:
    """The chain of callers. A server that trusts the one before has already put its caller as `client`."""
    peer = scope["client"][0] if scope.get("client") else "unknown"
    last = before.rpartition(",")[2].strip()
    return before if last == peer else f"{before}, {peer}".removeprefix(", ")


async def _send_back(response: aiohttp.ClientResponse, send: Send) -> None:
    """The API's answer. When it breaks off, so does ours, unfinished, which a client can tell from an end."""
    headers = [(name.lower(), value) for name, value in response.raw_headers]
    passed = [pair for pair in headers if pair[0].decode("latin-1") not in HOP_BY_HOP]
    await send({"type": "http.response.start", "status": response.status, "headers": passed})
    try:
        async for chunk in response.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except (aiohttp.ClientError, TimeoutError) as error:
        log.error("the API broke off its answer: %s", str(error) or type(error).__name__)
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _unreachable() -> JSONResponse:
    body = {
        "code": Code.UNAVAILABLE.number,
        "message": "the control plane cannot be reached at the moment; try again",
        "details": [],
    }
    return JSONResponse(body, status_code=Code.UNAVAILABLE.http_status, headers={"Retry-After": "1"})


async def incoming_ended() -> Message:
    """A `receive` for a response that reads nothing."""
    return {"type": "http.disconnect"}
