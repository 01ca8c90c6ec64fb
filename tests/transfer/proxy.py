"""A bad network: a TCP proxy that cuts all connections after so many bytes, or holds them up."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable
from typing import Self

CHUNK = 256 * 1024
RESET = struct.pack("ii", 1, 0)


class BadNetwork:
    """Between clients and a server on this machine. `up` and `down` count the bytes that went through."""

    def __init__(self, port: int) -> None:
        self.up = self.down = self.cuts = 0
        self._target = ("127.0.0.1", port)
        self._cuts_up: list[int] = []
        self._cuts_down: list[int] = []
        self._hold_at: int | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._live: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut_at(self, *, up: Iterable[int] = (), down: Iterable[int] = ()) -> None:
        """Cut everything when so many bytes have passed, from the start of all."""
        self._cuts_up, self._cuts_down = sorted(up), sorted(down)

    def hold_at(self, passed: int) -> None:
        """Let nothing more through after so many bytes, in either direction, until `flow`."""
        self._hold_at = passed

    @property
    def is_holding(self) -> bool:
        return not self._flowing.is_set()

    def flow(self) -> None:
        self._hold_at = None
        self._flowing.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.flow()
        self._cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                with self._lock:
                    self._live |= {client, server}
                for source, sink, is_up in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(source, sink, is_up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if self._note(len(data), is_up):
                    self._cut()
                    return
                self._flowing.wait()
                sink.sendall(data)
        self._close(source, sink)

    def _note(self, count: int, is_up: bool) -> bool:
        """Counts; whether this is the moment of a cut."""
        with self._lock:
            if is_up:
                self.up += count
            else:
                self.down += count
            if self._hold_at is not None and self.up + self.down >= self._hold_at:
                self._flowing.clear()
            passed, cuts = (self.up, self._cuts_up) if is_up else (self.down, self._cuts_down)
            if cuts and passed >= cuts[0]:
                cuts.pop(0)
                self.cuts += 1
                return True
            return False

    def _cut(self) -> None:
        with self._lock:
            live = list(self._live)
        self._close(*live)

    def _close(self, *sockets: socket.socket) -> None:
        for one in sockets:
            with self._lock:
                known = one in self._live
                self._live.discard(one)
            if known:
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
