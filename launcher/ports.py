"""Ports for the embedded services: chosen once, kept while they are free."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

# Below the range that Linux takes the ports of outgoing connections from, so none of those is in the way.
CANDIDATES = range(20_000, 32_000)


class NoFreePort(Exception):
    """Every port that was tried is taken."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(taken: Collection[int] = (), *, also: int = 0) -> int:
    """A free port outside `taken`; with `also`, the port that many further up is free as well."""
    for port in random.sample(CANDIDATES, k=200):
        wanted = {port, port + also}
        if wanted.isdisjoint(taken) and all(is_free(number) for number in wanted):
            return port
    raise NoFreePort("no free port between 20000 and 32000 on 127.0.0.1")
