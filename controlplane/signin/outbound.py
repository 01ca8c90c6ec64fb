"""Requests to identity providers: no redirects, bounded in size and time, and only where it is allowed."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import aiohttp

from controlplane.signin.addresses import PublicResolver, Refused, check_url

SECONDS = 10.0
LARGEST_ANSWER = 1024 * 1024


class NoAnswer(Exception):
    """The provider gave no answer that can be read; the text says why, in a few words."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any] = field(repr=False)


async def fetch(
    url: str,
    *,
    trusted: bool,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """GET, or POST with a form. NoAnswer unless a JSON object comes back in time, whatever the status."""
    try:
        check_url(url, trusted=trusted)
        async with asyncio.timeout(SECONDS), _client(trusted) as client:
            method = "GET" if form is None else "POST"
            async with client.request(
                method, url, data=form, headers=headers, allow_redirects=False
            ) as response:
                return Answer(response.status, _read_json(await _read(response), response.status))
    except Refused as error:
        raise NoAnswer(str(error)) from None
    except UnicodeError:
        raise NoAnswer("its host is no name that can be resolved") from None
    except TimeoutError:
        raise NoAnswer(f"no answer within {SECONDS:.0f} seconds") from None
    except aiohttp.ClientConnectorCertificateError:
        raise NoAnswer("its certificate is not valid") from None
    except aiohttp.ClientConnectorError as error:
        raise NoAnswer(f"no connection: {error.os_error.strerror or 'the name cannot be resolved'}") from None
    except aiohttp.ClientError as error:
        raise NoAnswer(f"no answer: {type(error).__name__}") from None


def _client(trusted: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=None if trusted else PublicResolver(), use_dns_cache=False, ssl=_tls()
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept": "application/json"},
        trust_env=False,
    )


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    received = bytearray()
    async for chunk in response.content.iter_any():
        received += chunk
        if len(received) > LARGEST_ANSWER:
            raise NoAnswer("its answer is too large")
    return bytes(received)


def _read_json(content: bytes, status: int) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NoAnswer(f"it answered {status} with something that is not a JSON object")
    return found
