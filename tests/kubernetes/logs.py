"""What the API server asks a node for when somebody reads a pod's log."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.kubernetes.cluster.certificates import write_own_certificate
from tests.kubernetes.containers import Container

Find = Callable[[str, str, str], Container | None]


class LogServer:
    """GET /containerLogs/{namespace}/{pod}/{container}?timestamps&sinceTime; `asked` counts the requests."""

    def __init__(self, find: Find, folder: Path) -> None:
        self.asked = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _answering(find, self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*write_own_certificate(folder))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def address(self) -> dict[str, Any]:
        """As a node's status has it."""
        return {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._server.server_port}},
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _answering(find: Find, server: LogServer) -> type[BaseHTTPRequestHandler]:
    class Asked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked += 1
            address = urlsplit(self.path)
            _, kind, *names = address.path.split("/")
            container = find(*names) if kind == "containerLogs" and len(names) == 3 else None
            if container is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            since = parse_qs(address.query).get("sinceTime", [""])[0]
            found = [(moment, line) for moment, line in container.timed_log() if moment >= since]
            said = b"".join(f"{moment[:-1]}.5Z ".encode() + line for moment, line in found)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:
            """The tests' output is for the tests."""

    return Asked
