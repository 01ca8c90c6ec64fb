"""Streams that break off, on either side."""

import json
import socket
import threading
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from sqlalchemy import select

from controlplane.resources.tables import LedgerRow
from tests.gateway.serving import wait_until

QUESTION = [{"role": "user", "content": "count"}]


def nothing_is_held(served) -> bool:
    gateway = served.running.gateway
    return not gateway.balancer.in_flight and not gateway.admission.held


def the_usage_row(served) -> LedgerRow:
    def find() -> LedgerRow | None:
        with served.world.db.session() as session:
            return session.scalar(select(LedgerRow))

    return wait_until(find)


def test_an_error_in_the_streams_first_event_becomes_the_status(served):
    """Which shows that 200 is not sent before the engine's first event is seen."""
    served.engine.fault = "error-first"
    with pytest.raises(openai.BadRequestError, match=f"{served.base} cannot do that"):
        served.openai.completions.create(model=served.base, prompt="count", stream=True)
    assert wait_until(lambda: nothing_is_held(served))


def test_chunks_arrive_while_the_engine_still_generates(served):
    served.engine.endless = True
    stream = served.openai.completions.create(model=served.base, prompt="count", stream=True)
    texts = [next(stream).choices[0].text for _ in range(3)]
    assert texts == ["one ", "two ", "three"]
    assert served.engine.active == 1
    stream.close()
    assert wait_until(lambda: served.engine.active == 0)


def test_a_caller_that_leaves_a_stream_stops_the_engine_and_pays_for_what_came(served):
    served.engine.endless = True
    with served.openai.completions.create(model=served.base, prompt="count", stream=True) as stream:
        next(stream)
        next(stream)
    assert wait_until(lambda: served.engine.left == 1)
    assert wait_until(lambda: nothing_is_held(served))
    row = the_usage_row(served)
    assert row.http_status == 499
    assert row.completion_tokens >= 2
    assert row.prompt_tokens == 7


def test_a_caller_that_never_reads_is_given_up(served, start_gateway, limits):
    served.engine.endless = True
    served.engine.tokens = ["word " * 20_000]
    running = start_gateway(limits(send_seconds=0.3))
    body = json.dumps({"model": served.base, "prompt": "count", "stream": True}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {served.key}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    where = urlsplit(running.url)
    with socket.create_connection((where.hostname, where.port)) as caller:
        caller.sendall(head.encode() + body)
        wait_until(lambda: served.engine.left == 1)
        wait_until(lambda: not running.gateway.balancer.in_flight and not running.gateway.admission.held)
    assert the_usage_row(served).http_status == 499


def test_a_fault_of_ones_own_is_told_and_recorded_as_one(served, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("a fault that nobody has foreseen")

    monkeypatch.setattr(served.running.gateway.balancer, "choose", broken)
    answer = served.http.post("/v1/completions", json={"model": served.base, "prompt": "count"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "INTERNAL")
    assert "foreseen" not in answer.text
    assert the_usage_row(served).http_status == 500


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_that_leaves_before_the_first_token_stops_the_engine(served, stream):
    served.engine.may_start.clear()
    asked = {"model": served.base, "prompt": "count", "stream": stream}
    client = served.http

    def ask() -> None:
        with pytest.raises(httpx.HTTPError):
            client.post("/v1/completions", json=asked, timeout=httpx.Timeout(30, read=0.5))

    caller = threading.Thread(target=ask)
    caller.start()
    assert wait_until(lambda: served.engine.active == 1)
    assert sum(served.running.gateway.balancer.in_flight.values()) == 1
    caller.join()
    assert wait_until(lambda: served.engine.left == 1)
    assert wait_until(lambda: nothing_is_held(served))
    assert the_usage_row(served).http_status == 499


@pytest.mark.parametrize("fault", ["die-midway", "error-midway"])
def test_an_engine_that_stops_midway_is_told_in_the_stream(served, fault):
    served.engine.fault = fault
    asked = {"model": served.base, "prompt": "count", "stream": True}
    with served.http.stream("POST", "/v1/completions", json=asked) as answer:
        text = answer.read().decode()
    assert answer.status_code == 200
    assert '"text":"one "' in text
    assert "stopped in the middle" in text
    assert "[DONE]" not in text
    assert "worker.py" not in text
    assert wait_until(lambda: nothing_is_held(served))
    row = the_usage_row(served)
    assert (row.http_status, row.completion_tokens, row.streamed) == (502, 2, True)


def test_the_openai_client_raises_when_an_engine_stops_midway(served):
    served.engine.fault = "die-midway"
    stream = served.openai.chat.completions.create(model=served.base, messages=QUESTION, stream=True)
    with pytest.raises(openai.APIError, match="stopped in the middle"):
        list(stream)
