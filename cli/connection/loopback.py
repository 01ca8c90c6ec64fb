"""A web server for one visit: where the browser comes back to, on this machine only."""

import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from cli.errors import CliError

_PATH = "/callback"
_PAGE = """<!doctype html><meta charset="utf-8"><title>firectl</title><p>{text}</p>"""
_DONE = "You are back from the sign-in. You can close this window and go on in the terminal."
_FAILED = "The sign-in did not succeed. You can close this window; the terminal says more."
_OTHER = "This is not the sign-in that firectl waits for."
_LONGEST = 16 * 1024
_VISIT_SECONDS = 10.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without the look-up of this machine's name, for which some machines wait seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])


class Loopback:
    """Listens from the beginning; `wait` gives what the browser brought with the expected state."""

    def __init__(self, port: int = 0) -> None:
        try:
            self._server = _Server(("127.0.0.1", port), self._handler())
        except OSError as error:
            raise CliError(
                f"cannot listen on port {port} of this machine: {error.strerror}",
                advice=["leave --port out, so that a free one is taken"],
            ) from None
        self._state = ""
        self._visit: dict[str, str] | None = None
        self._came_back = threading.Event()
        self.redirect_uri = f"http://127.0.0.1:{self._server.server_port}{_PATH}"

    def __enter__(self) -> "Loopback":
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        ).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def expect(self, state: str) -> None:
        self._state = state

    def wait(self, seconds: float) -> dict[str, str]:
        """The query of the visit: a `code`, or an `error`."""
        deadline = time.monotonic() + seconds
        # In steps, so that Ctrl-C is heard at once.
        while not self._came_back.wait(0.2):
            if time.monotonic() > deadline:
                raise CliError("nobody signed in in time", advice=["firectl signin ACCOUNT"])
        return self._visit or {}

    def _page(self, address: str) -> tuple[int, str]:
        """The answer to a visit. Whoever comes without the state is somebody else, and changes nothing."""
        url = urlsplit(address)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        state = query.get("state", "").encode()
        if url.path != _PATH or not self._state or not secrets.compare_digest(state, self._state.encode()):
            return 404, _OTHER
        if self._visit is None:
            self._visit = query
        return 200, _DONE if "code" in query else _FAILED

    def _handler(loopback: "Loopback") -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            timeout = _VISIT_SECONDS

            def do_GET(self) -> None:
                status, text = (414, _OTHER) if len(self.path) > _LONGEST else loopback._page(self.path)
                try:
                    self._answer(status, text)
                finally:
                    # Not before the page is sent: firectl may end in the next moment.
                    if loopback._visit is not None:
                        loopback._came_back.set()

            def _answer(self, status: int, text: str) -> None:
                content = _PAGE.format(text=text).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Referrer-Policy", "no-referrer")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass  # the address holds the code

        return Handler
