"""Where the platform listens, and how clients reach it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from launcher.data_dir import DataDir
from launcher.ports import free_port, is_free
from launcher.program import StartFailed

DEFAULT_PORT = 8600
BACKLOG = 2048
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Address:
    host: str
    """What the gateway binds to."""
    port: int
    reachable_host: str

    @property
    def url(self) -> str:
        return self.at_port(self.port)

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK

    @property
    def probe_host(self) -> str:
        """An address of this machine that the gateway listens on."""
        return "127.0.0.1" if self.host in (*EVERYWHERE, "localhost") else self.host

    def at_port(self, port: int) -> str:
        host = f"[{self.reachable_host}]" if ":" in self.reachable_host else self.reachable_host
        return f"http://{host}:{port}"


def choose_address(data_dir: DataDir, host: str, port: int | None) -> Address:
    """The port that was asked for; else the one of the last start, the usual one, or any that is free."""
    _check_host(host)
    reachable = _own_address() if host in EVERYWHERE else host
    if port is not None:
        if not is_free(port, host):
            raise StartFailed(f"port {port} of {host} is taken; choose another with --port")
        return Address(host, port, reachable)
    last = urlsplit(data_dir.read_env().get("FIREWORKS_BASE_URL", "")).port
    for candidate in (last, DEFAULT_PORT):
        if candidate is not None and is_free(candidate, host):
            return Address(host, candidate, reachable)
    return Address(host, free_port(), reachable)


def listen(address: Address) -> socket.socket:
    """Take the address for good; raises StartFailed when somebody else was faster."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise StartFailed(f"port {address.port} of {address.host}: {error.strerror}") from None


def _check_host(host: str) -> None:
    """Raise StartFailed for a host that no server of this machine could listen on."""
    try:
        is_this_machines = is_free(0, host)
    except OSError:
        is_this_machines = False
    if not is_this_machines:
        raise StartFailed(f"--host {host} is no address of this machine")


def _own_address() -> str:
    """The address that this machine has towards others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # An address for documentation; connecting sends nothing.
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
