"""The access log: a line for each request, written several at a time."""

from __future__ import annotations

import io
import logging
import re

import pytest
from msgspec.structs import replace

from gateway.access_log import MOST_LINES, Lines, Seen, as_text
from gateway.telemetry import Telemetry
from tests.gateway.serving import wait_until

SEEN = Seen(1767225600.25, "POST", "/v1/completions", 200, 0.0124, {"account": "acme"})


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def lines(stream):
    return Lines(stream=lambda: stream)


async def test_lines_are_written_together_and_each_has_its_own_time(lines, stream):
    for later in (0, 0.5, 61):
        lines.add(replace(SEEN, moment=SEEN.moment + later))
    assert stream.getvalue() == ""
    lines.write()
    written = stream.getvalue().splitlines()
    assert len(written) == 3
    assert all(
        re.fullmatch(
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO hearth.gateway.access "
            r"POST /v1/completions 200 12ms account=acme",
            one,
        )
        for one in written
    )
    assert [one[20:23] for one in written] == ["250", "750", "250"]
    assert written[0][14:19] != written[2][14:19]


async def test_many_lines_do_not_wait(lines, stream):
    for _ in range(MOST_LINES):
        lines.add(SEEN)
    assert stream.getvalue().count("\n") == MOST_LINES


@pytest.mark.parametrize("path", ["/v1/a\nb", "/v1/" + "x" * 5000, "/v1/\x1b[31m", "/v1/ü"])
def test_a_path_cannot_write_lines_of_its_own_nor_long_ones(path):
    text = as_text(replace(SEEN, path=path)).removesuffix("\n")
    assert text.isprintable()
    assert text.isascii()
    assert len(text) < 300


def test_a_gateways_lines_tell_the_account_and_no_more(served, capfd):
    logging.getLogger("hearth.gateway.access").setLevel(logging.INFO)
    try:
        served.openai.completions.create(model=served.base, prompt="a secret question")
        served.http.get("/v1/nothing?secret=1")
        said = []

        def told() -> bool:
            said.append(capfd.readouterr().err)
            return "/v1/nothing" in "".join(said)

        wait_until(told)
    finally:
        logging.getLogger("hearth.gateway.access").setLevel(logging.NOTSET)
    text = "".join(said)
    assert "POST /inference/v1/completions 200 " in text
    assert f"account=acme model={served.base}\n" in text
    assert "secret" not in text
    assert served.key not in text


def test_durations_are_counted_in_the_bucket_that_holds_them():
    telemetry = Telemetry()
    for seconds in (0.005, 0.01, 0.2, 10_000):
        telemetry.see_first_byte("completions", "acme/d", seconds)
    text = telemetry.render().decode()
    found = re.findall(r'first_byte_seconds_bucket\{deployment="acme/d",.*le="([^"]+)"\} (\S+)', text)
    counts = dict(found)
    assert (counts["0.01"], counts["0.1"], counts["0.25"], counts["600.0"]) == ("2.0", "2.0", "3.0", "3.0")
    assert counts["+Inf"] == "4.0"
    assert 'first_byte_seconds_count{deployment="acme/d",endpoint="completions"} 4.0' in text
