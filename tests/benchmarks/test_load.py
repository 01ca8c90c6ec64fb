"""What the benchmarks read in the reports of their load generator, and the engine that they stand in."""

import pytest

from benchmarks.engine import CHUNKS, events
from benchmarks.load import Load, read
from gateway.metering import Tokens
from gateway.passage import Passage

REPORT = """Running 5s test @ http://127.0.0.1:8600/v1/chat/completions
  1 threads and 16 connections
  Latency Distribution
     50%  {p50}
     75%    3.91ms
  21355 requests in 5.00s, 12.34MB read
{wrong}Requests/sec:   4271.00
Transfer/sec:      2.47MB
"""
WRONG = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n"


@pytest.mark.parametrize(("p50", "ms"), [("107.00us", 0.107), ("3.38ms", 3.38), ("1.49s", 1490.0)])
def test_a_report_is_read(p50, ms):
    assert read(REPORT.format(p50=p50, wrong="")) == Load(21355, 4271.0, pytest.approx(ms), 0)


def test_everything_that_went_wrong_is_counted():
    assert read(REPORT.format(p50="1.00ms", wrong=WRONG)).errors == 15


def test_a_report_of_another_kind_ends_the_benchmark():
    with pytest.raises(SystemExit, match="unknown"):
        read("unable to connect to 127.0.0.1:8600 Connection refused\n")


def test_the_stand_in_streams_chunks_that_pass_unread():
    *chunks, finish, usage, done = [f"{event}\n\n".encode() for event in events()]
    assert len(chunks) + 1 == CHUNKS
    assert Passage("m", Tokens()).take(b"".join(chunks))[1] == b""
    assert Passage("m", Tokens()).take(finish + usage)[1] == finish + usage
    assert done == b"data: [DONE]\n\n"
