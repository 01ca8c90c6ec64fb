"""Engines that misbehave: the caller gets an end or an error in time, and nothing stays behind."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.gateway.serving import wait_until

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = {"id": "c", "object": "text_completion", "created": 1, "model": "base-uid"}


def sent_chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def event(text: str, count: int) -> bytes:
    """A chunk in the form that is passed on unread."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": None}
    usage = {"prompt_tokens": 7, "total_tokens": 7 + count, "completion_tokens": count}
    told = json.dumps({**CHUNK, "choices": [choice], "usage": usage}, separators=(",", ":"))
    return sent_chunk(f"data: {told}\n\n".encode())


TWO = STREAM + event("one ", 1) + event("two ", 2)


class RawEngine:
    """Answers every request with the same bytes, and then ends the connection in its way."""

    def __init__(self) -> None:
        self.answer = b""
        self.ending = "close"
        """`close`, `reset` or `silence`."""
        self.requests = 0
        self._left = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._left.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            self.requests += 1
            connection.sendall(self.answer)
            if self.ending == "silence":
                connection.settimeout(30)
                connection.recv(1)
            elif self.ending == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def raw() -> Iterator[RawEngine]:
    engine = RawEngine()
    yield engine
    engine.stop()


@pytest.fixture
def ask(world, raw, start_gateway, limits) -> Iterator[Callable[[bool], tuple[int, str]]]:
    """Asks the engine through a gateway; the status and what came. Looks that nothing stays behind."""
    base = world.add_base("acme", "llama")
    deployment = world.add_deployment("acme", "main", base)
    world.add_replica(deployment, raw.url, "base-uid")
    world.load("acme", "llama-1", base, deployment)
    running = start_gateway(limits(silence_seconds=0.5))
    gateway = running.gateway
    http = running.http(world.keys["acme"])

    def send(stream: bool) -> tuple[int, str]:
        answer = http.post("/v1/completions", json={"model": "llama", "prompt": "count", "stream": stream})
        return answer.status_code, answer.text

    yield send
    wait_until(lambda: not gateway.balancer.in_flight and not gateway.admission.held)
    assert gateway.admission.bytes == 0
    assert set(gateway.telemetry.in_flight.values()) <= {0}
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("more", "ending"),
    [
        (b"", "close"),
        (b"", "reset"),
        (b"", "silence"),
        (b"0\r\n\r\n", "close"),
        (b"nonsense\r\n", "silence"),
        (sent_chunk(b"data: {nonsense\n\n"), "silence"),
        (sent_chunk(b'data: ["no object"]\n\n'), "silence"),
        (sent_chunk(b'data: {"no": "choices"}\n\n'), "silence"),
        (sent_chunk(b'data: {"error": {"message": "at /opt/worker.py"}}\n\n'), "silence"),
    ],
    ids=[
        "closed",
        "reset",
        "stuck",
        "no end mark",
        "no chunk",
        "no JSON",
        "a list",
        "no choices",
        "an error",
    ],
)
def test_a_stream_that_goes_wrong_in_the_middle_ends_with_an_error_event(raw, ask, more, ending):
    raw.answer, raw.ending = TWO + more, ending
    status, text = ask(True)
    *chunks, last = [json.loads(line[6:]) for line in text.split("\n\n") if line]
    assert status == 200
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "one two "
    assert {chunk["model"] for chunk in chunks} == {"accounts/acme/models/llama"}
    assert last["error"]["message"] == "the model's engine stopped in the middle of its answer"
    assert "worker.py" not in text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("answer", "ending", "status"),
    [
        (b"", "close", 503),
        (b"", "reset", 503),
        (b"", "silence", 504),
        (b"HTTP/1.1 200", "close", 503),
        (b"SSH-2.0-OpenSSH_9\r\n", "close", 503),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\n<h1>no</h", "close", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", "silence", 504),
    ],
    ids=["closed", "reset", "stuck", "half a head", "no HTTP", "a page", "half an answer"],
)
def test_an_answer_that_never_begins_is_an_error_of_its_own(raw, ask, stream, answer, ending, status):
    raw.answer, raw.ending = answer, ending
    found, text = ask(stream)
    assert found == status
    assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("body", [b"[1]", b"{}", b"no JSON"])
def test_a_whole_answer_that_is_none_is_an_error(raw, ask, body):
    raw.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    assert ask(False)[0] == 502
