"""A part's own small port for whoever watches it: `/metrics`, `/healthz` and `/readyz`, and no key.

What guards it is where it listens: loopback unless HEARTH_METRICS_HOST names something else, and never the
port that users reach. It answers from a thread, also when the part itself is stuck.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from controlplane.config import Settings
from controlplane.observability.health import Missing, verdict_text
from controlplane.observability.metrics import CONTENT_TYPE

log = logging.getLogger("hearth.metrics")

Reply = tuple[int, str, bytes]
"""Status, content type, body."""
JSON = "application/json"
CALLER_SECONDS = 10.0
"""How long a caller may take to ask."""


class PortTaken(RuntimeError):
    """The port of HEARTH_METRICS_PORT cannot be listened on."""


class WatchPort:
    def __init__(self, host: str, port: int, replies: Mapping[str, Callable[[], Reply]]) -> None:
        """Raises PortTaken. `replies` are called in threads of their own."""
        try:
            self._server = _Server((host, port), _handler(replies))
        except OSError as error:
            raise PortTaken(f"HEARTH_METRICS_PORT: port {port} of {host}: {error.strerror}") from None
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="watch-port", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def open_port(
    settings: Settings, *, metrics: Callable[[], bytes], alive: Missing, ready: Missing
) -> WatchPort | None:
    """The port that the settings ask for, if they do; ends the program when it cannot be had."""
    if settings.metrics_port is None:
        return None
    replies = {
        "/metrics": lambda: (200, CONTENT_TYPE, metrics()),
        "/healthz": lambda: _said(alive),
        "/readyz": lambda: _said(ready),
    }
    try:
        return WatchPort(settings.metrics_host, settings.metrics_port, replies)
    except PortTaken as error:
        sys.exit(f"hearth: {error}")


def _said(missing: Missing) -> Reply:
    status, body = verdict_text(missing())
    return status, JSON, body


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(replies: Mapping[str, Callable[[], Reply]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CALLER_SECONDS
        server_version, sys_version = "hearth", ""

        def do_GET(self) -> None:
            reply = replies.get(self.path.partition("?")[0])
            status, kind, body = _tried(reply) if reply else (404, JSON, b'{"status": "no such path"}')
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds, and nobody wants to read of them."""

    return Handler


def _tried(reply: Callable[[], Reply]) -> Reply:
    try:
        return reply()
    except Exception:
        log.exception("a question to the watch port failed")
        return 500, JSON, b'{"status": "internal error"}'
