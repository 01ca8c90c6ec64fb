"""A TCP road to the API server that tests can close, so that any cluster can be away for a while."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml


class Road:
    """Forwards connections to `target` until it is closed; `cut` ends them all, and new ones are refused."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open = True
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            self._open = False
            ends, self._ends = self._ends, set()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._open = True

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with self._lock:
            if not self._open:
                near.close()
                return
        with suppress(OSError), near, socket.create_connection(self._target) as far:
            with self._lock:
                if not self._open:
                    return
                self._ends |= {near, far}
            try:
                _pass_on(near, far)
            finally:
                with self._lock:
                    self._ends -= {near, far}


def _pass_on(near: socket.socket, far: socket.socket) -> None:
    with selectors.DefaultSelector() as ready:
        ready.register(near, selectors.EVENT_READ, far)
        ready.register(far, selectors.EVENT_READ, near)
        while True:
            for key, _ in ready.select():
                said = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if not said:
                    return
                key.data.sendall(said)


def over_road(kubeconfig: Path, road_file: Path) -> Road:
    """Writes a kubeconfig whose current cluster is reached by a road of its own."""
    document: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    context = next(each for each in document["contexts"] if each["name"] == document["current-context"])
    cluster = next(each for each in document["clusters"] if each["name"] == context["context"]["cluster"])
    address = urlsplit(cluster["cluster"]["server"])
    road = Road((address.hostname or "127.0.0.1", address.port or 443))
    cluster["cluster"] |= {
        "server": f"https://127.0.0.1:{road.port}",
        "tls-server-name": cluster["cluster"].get("tls-server-name") or address.hostname,
    }
    road_file.touch(mode=0o600)
    road_file.write_text(yaml.safe_dump(document))
    return road
