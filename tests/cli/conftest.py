"""A small HTTP server that stands in for the API.

These are tests of firectl's own logic: what it sends for a command line, and what it makes of the answers.
That the real server gives such answers is for the tests of the whole platform to show.
"""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import typer

from cli.main import app

ACCOUNT = "acme"
HOME = f"/v1/accounts/{ACCOUNT}"


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@dataclass
class Answer:
    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False  # close the connection without an answer


class StandIn:
    """Answers by method and path; a list of answers is given one by one, the last one for good."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._answers: dict[tuple[str, str], list[Answer | Callable[[Request], Answer]]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def on(self, method: str, path: str, *answers: Any) -> None:
        """Says what a path answers: bodies (200), Answers, or functions of the request."""
        made = [a if isinstance(a, Answer) or callable(a) else Answer(body=a) for a in answers]
        self._answers[method, path] = made

    def sent(self, method: str, path: str | None = None) -> list[Request]:
        return [r for r in self.requests if r.method == method and path in (None, r.path)]

    @staticmethod
    def ok(body: Any) -> Answer:
        return Answer(200, body)

    @staticmethod
    def refusal(status: int, code: int, message: str, *details: Any, **headers: str) -> Answer:
        """An error as the API gives it."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Answer(status, {"code": code, "message": message, "details": list(details)}, named)

    @staticmethod
    def raw(status: int, content: bytes) -> Answer:
        return Answer(status, content)

    @staticmethod
    def lost() -> Answer:
        """A connection that ends without an answer."""
        return Answer(hang_up=True)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            answers = self._answers.get((request.method, request.path))
            if not answers:
                return Answer(404, {"code": 5, "message": f"{request.path} not found", "details": []})
            chosen = answers.pop(0) if len(answers) > 1 else answers[0]
        return chosen(request) if callable(chosen) else chosen

    def _handler(stand_in: "StandIn") -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body leave together, not 40 ms apart
            disable_nagle_algorithm = True

            def serve(self) -> None:
                url = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                headers = {key.lower(): value for key, value in self.headers.items()}
                content = self.rfile.read(length)
                answer = stand_in.answer(Request(self.command, url.path, query, headers, content))
                if answer.hang_up:
                    self.close_connection = True
                    return
                raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                kind = {} if isinstance(answer.body, bytes) else {"Content-Type": "application/json"}
                self.send_response(answer.status)
                for key, value in {**kind, "Content-Length": str(len(raw)), **answer.headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def api() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The user's home folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def firectl(
    api: StandIn, home: Path, command_tree: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Runs firectl as a user of the account `acme` of the stand-in."""

    def run(*argv: str, env: dict[str, str | None] | None = None) -> Ran:
        settings = {
            "HOME": str(home),
            "TZ": "UTC",
            "FIREWORKS_API_KEY": "fw_test",
            "FIREWORKS_ACCOUNT_ID": ACCOUNT,
            "FIREWORKS_BASE_URL": api.url,
            "WANDB_API_KEY": None,
            **(env or {}),
        }
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in settings.items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                command_tree.main(list(argv))
        return Ran(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def command_tree() -> Any:
    """The command tree, built once."""
    return typer.main.get_command(app)


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.show.waiting.FIRST_POLL_SECONDS", 0.01)
    monkeypatch.setattr("cli.connection.client.BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr("cli.transfer.retries.BACKOFF_SECONDS", 0.01)
