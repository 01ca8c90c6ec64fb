"""Which addresses the server may fetch from: who sets up a provider must not reach into our own network."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """A URL that is not fetched; the text says why."""


def check_url(url: str, *, trusted: bool, schemes: tuple[str, ...] = ("https",)) -> None:
    """Refused unless it is https to a name or a public address; of a trusted issuer http, and anywhere."""
    # What is connected to is made of the URL by another library, to which `１２７.0.0.1` is an address.
    if not url.isascii() or not url.isprintable() or " " in url:
        raise Refused(f"{url!a} is not plain ASCII; names of other letters are written as xn--…")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise Refused(f"{url!r} is not a URL") from None
    if parts.scheme not in schemes and not (trusted and parts.scheme == "http"):
        raise Refused(f"{url!r} does not begin with {schemes[0]}://")
    if not host or parts.username is not None or parts.password is not None:
        raise Refused(f"{url!r} must name a host, and no user")
    literal = as_address(host)
    # What connects takes `127.1` and `2130706433` for addresses as well, and resolves no names of these.
    if literal is None and not trusted and host.replace(".", "").isdigit():
        raise Refused(f"{host} is not a public address in its usual form")
    if literal is not None and not trusted and not is_public(literal):
        raise Refused(f"{host} is not a public address")


def as_address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether it is one that anybody on the Internet could be reached at."""
    inner = _embedded(address)
    if inner is not None:
        return is_public(inner)
    forgotten = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or forgotten)


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only. What is checked is what is connected to, so that a name that
    points elsewhere a moment later leads nowhere."""

    def __init__(self, inner: AbstractResolver | None = None) -> None:
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            address = as_address(one["host"])
            if address is None or not is_public(address):
                raise Refused(f"{host} leads to {one['host']}, which is not a public address")
        return found

    async def close(self) -> None:
        await self._inner.close()
