"""Lines that programs can read, with what is known of the work, and without what nobody is to read."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import httpx
import pytest

from controlplane.observability.logs import JsonLines, TextLines, facts
from gateway.access_log import Lines, Seen

SEEN = Seen(1767225600.25, "POST", "/v1/completions", 200, 0.0124, {"request_id": "r", "account": "acme"})


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream, logger = io.StringIO(), logging.getLogger("tests.observed")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    yield logger, stream
    logger.removeHandler(handler)


def test_a_line_holds_what_is_known_and_an_exception_stays_on_it(log):
    logger, stream = log
    with facts(request_id="r-1", account="acme"), facts(resource="models 7"):
        try:
            raise LookupError("gone")
        except LookupError:
            logger.exception("failed\nagain")
    logger.warning("later")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["message"] == "failed\nagain"
    assert (first["request_id"], first["account"], first["resource"]) == ("r-1", "acme", "models 7")
    assert "LookupError: gone" in first["exception"]
    assert second.keys() == {"time", "level", "logger", "message"}


@pytest.mark.parametrize(
    "said",
    [
        "bad key fw_abcdefSECRETghijkl given",
        "no way to postgresql://hearth:SECRET@10.0.0.1:5432/hearth",
        "redis://:SECRET@host/0 refused",
        "header Authorization: Bearer SECRETabcdefgh",
    ],
)
def test_what_looks_like_a_secret_is_crossed_out(log, said):
    logger, stream = log
    logger.error(said)
    record = logging.LogRecord("x", logging.ERROR, "", 0, said, (), None)
    for line in (stream.getvalue(), TextLines().format(record)):
        assert "SECRET" not in line
        assert "***" in line


async def test_a_gateways_line_is_json_when_that_is_asked_for():
    stream = io.StringIO()
    lines = Lines("json", lambda: stream)
    lines.add(SEEN)
    lines.write()
    assert json.loads(stream.getvalue()) == {
        "time": "2026-01-01T00:00:00.250Z",
        "level": "INFO",
        "logger": "hearth.gateway.access",
        "message": "POST /v1/completions 200 12ms",
        "request_id": "r",
        "account": "acme",
    }


def test_an_api_answers_with_the_requests_id_and_logs_it_without_the_query(api, caplog):
    url, watched = api
    caplog.set_level(logging.INFO, "hearth.api.access")
    plain = httpx.get(f"{url}/v1/accounts?filter=SECRET", headers={"x-request-id": "mine-7"})
    assert (plain.status_code, plain.headers["x-request-id"]) == (401, "mine-7")
    forged = httpx.get(f"{url}/nowhere", headers={"x-request-id": "a b"})
    assert len(forged.headers["x-request-id"]) == 32
    assert [record.getMessage().rpartition(" ")[0] for record in caplog.records] == [
        "GET /v1/accounts 401",
        "GET /nowhere 404",
    ]
    counted = watched.samples("hearth_api_requests_total")
    assert counted[("GET", "/v1/accounts", "401")] == counted[("GET", "none", "404")] == 1
    assert watched.samples("hearth_api_database_connections_limit")[()] == 20
