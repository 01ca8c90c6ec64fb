"""Pictures that a request names by URL: fetched here, so that engines reach nothing but what they are sent.

A URL leads to a public address or nowhere, after each redirect as well. The address that was checked is the
one that is connected to, so that a name that points elsewhere a moment later gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from urllib.parse import urljoin
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from controlplane.signin.addresses import PublicResolver, Refused, check_url
from gateway.errors import GatewayError, invalid
from gateway.limits import Limits
from gateway.media.parts import Part
from gateway.media.sizes import pixels_of
from gateway.media.types import NAMES, image_type

SCHEMES = ("https", "http")
MOVED = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 3
AT_ONCE = 64
"""Fetches of all requests at one time, of which one account gets half; the others wait, within their time."""
LOOKUPS = 16
"""Names that are looked up at one time."""


class NotFetched(Exception):
    """No image came of a URL; the text says why."""


class Fetcher:
    def __init__(
        self,
        limits: Limits,
        resolver: Callable[[], AbstractResolver] | None = None,
        check: Callable[[str], None] = lambda url: check_url(url, trusted=False, schemes=SCHEMES),
    ) -> None:
        """`resolver` and `check` decide where URLs may lead."""
        self._limits = limits
        self._lookups = ThreadPoolExecutor(LOOKUPS, "image-names")
        self._resolver = resolver or (lambda: PublicResolver(OwnThreads(self._lookups)))
        self._check = check
        self._places = asyncio.Semaphore(AT_ONCE)
        self._own_places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def close(self) -> None:
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def inline(self, parts: list[Part], hold: Callable[[int], None], account_id: str = "") -> int:
        """Put images in the place of their URLs; 400 when one cannot be had. `hold` counts their bytes.

        Returns how many pixels they have together.
        """
        named = [part["image_url"] for part in parts if part["type"] == "image_url"]
        named = [image for image in named if not image["url"].startswith("data:")]
        if not named:
            return 0
        own = self._own_places.setdefault(account_id, asyncio.Semaphore(AT_ONCE // 2))
        async with self._client() as client:
            tasks = [asyncio.create_task(self._put(client, image, hold, own)) for image in named]
            try:
                return sum(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    async def _put(
        self,
        client: aiohttp.ClientSession,
        image: dict[str, str],
        hold: Callable[[int], None],
        own: asyncio.Semaphore,
    ) -> int:
        url = image["url"]
        try:
            async with asyncio.timeout(self._limits.image_seconds), own, self._places:
                content = await self._follow(client, url)
        except TimeoutError:
            raise _no_image(url, f"no answer within {self._limits.image_seconds:g} seconds") from None
        except (Refused, NotFetched) as error:
            raise _no_image(url, str(error)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _no_image(url, f"no answer: {type(error).__name__}") from None
        found = image_type(content)
        if found is None:
            raise _no_image(url, f"it is no image of a known type; these are {NAMES}")
        try:
            pixels = pixels_of(content, found)
        except ValueError as error:
            raise _no_image(url, f"it {error}") from None
        hold(len(content) * 4 // 3)
        image["url"] = f"data:{found};base64,{b64encode(content).decode()}"
        return pixels

    async def _follow(self, client: aiohttp.ClientSession, url: str) -> bytes:
        for _ in range(MOST_REDIRECTS + 1):
            self._check(url)
            async with client.get(url, allow_redirects=False) as response:
                if response.status not in MOVED:
                    return await self._read(response)
                url = urljoin(url, response.headers.get("Location", ""))
        raise NotFetched(f"it is redirected more than {MOST_REDIRECTS} times")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status != 200:
            raise NotFetched(f"the answer is {response.status}")
        most = self._limits.image_bytes
        received = bytearray()
        async for chunk in response.content.iter_any():
            received += chunk
            if len(received) > most:
                raise NotFetched(f"it is larger than {most} bytes")
        return bytes(received)

    def _client(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(resolver=self._resolver(), use_dns_cache=False, ssl=_tls())
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "image/*", "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
        )


class OwnThreads(AbstractResolver):
    """Looks names up in threads of its own: a lookup outlives who gave it up, and the loop's own threads have
    other work."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        lookup = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, lookup)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=str(place[0]), port=int(place[1]), family=kind, proto=proto, flags=numeric
            )
            for kind, _, proto, _, place in found
        ]

    async def close(self) -> None:
        """The threads are the fetcher's."""


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _no_image(url: str, why: str) -> GatewayError:
    return invalid(f"the image {url[:200]!a} cannot be fetched: {why}", "image_url")
