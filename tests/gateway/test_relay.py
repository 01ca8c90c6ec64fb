"""Control-plane paths on the gateway's port: passed on in both directions as they come."""

import asyncio
import json
import socket
import threading

import httpx
import pytest

from gateway.relay import _forwarded_for
from tests.gateway.fake_engine import until_gone
from tests.gateway.serving import until_set, wait_until

LIMIT = 3 * 1024 * 1024
PIECE = b"x" * 65536


class FakeApi:
    """Echoes what it is asked. It stands for any HTTP server behind the relay, not for the control plane."""

    def __init__(self) -> None:
        self.received = 0
        self.left = 0
        self.may_go_on = threading.Event()

    async def __call__(self, scope, receive, send):
        path = scope["path"]
        if path.endswith(":upload"):
            await self._upload(scope, receive, send)
        elif path.endswith("/large"):
            await self._large(receive, send)
        else:
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            raw = scope["raw_path"].decode()
            query = scope["query_string"].decode()
            await self._reply(
                send, 418, {"method": scope["method"], "path": raw, "query": query, "headers": headers}
            )

    async def _upload(self, scope, receive, send):
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            self.received += len(message.get("body", b""))
            more = message.get("more_body", False)
            if self.received > LIMIT and scope["query_string"] != b"unbounded":
                await self._reply(send, 413, {"code": 11, "message": "too large", "details": []})
                return
        await self._reply(send, 200, {"received": self.received})

    async def _large(self, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2):
            for _ in range(16):
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            gone = asyncio.create_task(until_gone(receive))
            go_on = asyncio.create_task(until_set(self.may_go_on))
            await asyncio.wait({gone, go_on}, return_when=asyncio.FIRST_COMPLETED)
            go_on.cancel()
            if gone.done():
                self.left += 1
                return
            gone.cancel()
        await send({"type": "http.response.body", "body": b"end"})

    async def _reply(self, send, status, content):
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"7")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(content).encode()})


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def url(api, serve, start_gateway):
    yield start_gateway(api_url=serve(api)).url
    api.may_go_on.set()


def test_path_query_headers_status_and_body_are_passed_on(url):
    answer = httpx.patch(
        f"{url}/v1/accounts/a/models/b%2Fc:x?filter=a%3D1&b=",
        headers={"Authorization": "Bearer fw_1"},
        json={},
    )
    assert answer.status_code == 418
    assert answer.headers["retry-after"] == "7"
    seen = answer.json()
    assert seen["method"] == "PATCH"
    assert seen["path"] == "/v1/accounts/a/models/b%2Fc:x"
    assert seen["query"] == "filter=a%3D1&b="
    assert seen["headers"]["authorization"] == "Bearer fw_1"
    assert seen["headers"]["x-forwarded-for"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("before", "chain"),
    [
        ("", "1.2.3.4"),
        ("9.9.9.9", "9.9.9.9, 1.2.3.4"),
        ("9.9.9.9, 1.2.3.4", "9.9.9.9, 1.2.3.4"),
        ("11.2.3.4", "11.2.3.4, 1.2.3.4"),  # that its own address ends the caller's word is no proof
    ],
)
def test_the_api_is_told_the_caller_s_real_address(before, chain):
    assert _forwarded_for({"client": ("1.2.3.4", 5)}, before) == chain


@pytest.mark.parametrize(
    "path", ["/verifyApiKey", "/version", "/openapi.json", "/docs", "/v1/accounts", "/v1/operations/x"]
)
def test_every_control_plane_path_answers_on_the_gateways_port(url, path):
    assert httpx.get(url + path).status_code == 418


@pytest.mark.parametrize("path", ["/", "/admin", "/inference/v1/accounts", "/v1/image_generation"])
def test_other_paths_are_not_asked_of_the_api(url, path):
    answer = httpx.get(url + path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"


def pieces(count: int):
    for _ in range(count):
        yield PIECE


@pytest.mark.parametrize("with_length", [True, False])
def test_an_upload_passes_through(url, with_length):
    headers = {"Content-Length": str(32 * len(PIECE))} if with_length else {}
    answer = httpx.post(f"{url}/v1/accounts/a/datasets/d:upload", content=pieces(32), headers=headers)
    assert answer.json() == {"received": 32 * len(PIECE)}


def test_an_upload_that_the_api_cuts_off_gets_the_apis_answer(url, api):
    answer = httpx.post(f"{url}/v1/accounts/a/datasets/d:upload", content=pieces(160), timeout=30)
    assert answer.status_code == 413
    assert answer.json()["message"] == "too large"
    assert api.received < 160 * len(PIECE), "the rest was not sent to the api"


def test_an_upload_whose_caller_leaves_is_ended_on_both_sides(url, api):
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall(b"POST /v1/accounts/a/datasets/d:upload?unbounded HTTP/1.1\r\nHost: x\r\n")
        caller.sendall(b"Content-Length: 1000000000\r\n\r\n" + PIECE)
        assert wait_until(lambda: api.received == len(PIECE))
    assert wait_until(lambda: api.left == 1)


def test_a_large_answer_arrives_while_it_is_made(url, api):
    with httpx.stream("GET", f"{url}/v1/accounts/a/large", timeout=30) as answer:
        received = 0
        for part in answer.iter_bytes():
            received += len(part)
            if received >= 16 * len(PIECE):
                api.may_go_on.set()
    assert received == 32 * len(PIECE) + 3


def test_a_caller_that_leaves_ends_the_apis_work(url, api):
    with httpx.stream("GET", f"{url}/v1/accounts/a/large", timeout=30) as answer:
        next(answer.iter_bytes())
    assert wait_until(lambda: api.left == 1)


def test_an_api_that_is_down_is_said_in_the_control_planes_words(start_gateway):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    running = start_gateway(api_url=f"http://127.0.0.1:{port}")
    answer = running.http().get("/v1/accounts")
    assert answer.status_code == 503
    assert answer.json()["code"] == 14
    assert answer.headers["retry-after"] == "1"


def test_without_an_api_behind_it_the_gateway_has_no_control_plane_paths(start_gateway):
    assert start_gateway().http().get("/v1/accounts").status_code == 404
