"""Large datasets are tokenized by several processes: the same bytes and counts, whatever their number."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.training.conftest import PLAIN_TEMPLATE
from workers.training.examples import pool
from workers.training.examples.dataset import ROWS_AT_ONCE, tokenize
from workers.training.examples.encoding import Encoder
from workers.training.examples.pool import tokenize_files
from workers.training.examples.reading import Reading
from workers.training.examples.rows import Chunk, read_chunks
from workers.training.preflight.findings import Facts, find

READING = Reading("conversation", PLAIN_TEMPLATE, template_tokens={"bos_token": "<|bos|>"})


def write(path: Path, rows: int, bad: Sequence[int] = ()) -> Path:
    with path.open("w") as file:
        for number in range(rows):
            talk = [("user", f"number {number}?"), ("assistant", f"it is {number}" * (1 + number % 40))]
            messages = [{"role": role, "content": content} for role, content in talk]
            file.write("oops\n" if number in bad else json.dumps({"messages": messages}) + "\n")
    return path


def test_processes_write_what_one_would_have_written(
    encoder: Encoder, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "POOLED_BYTES", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    files = [write(tmp_path / "a.jsonl", 4 * ROWS_AT_ONCE + 9, bad=[700]), write(tmp_path / "b.jsonl", 300)]

    with READING.open(encoder) as reader:
        together = tokenize_files(files, READING, reader, encoder, [], 64, tmp_path / "together.arrow")
        alone = tokenize(files, reader, encoder, [], 64, tmp_path / "alone.arrow")

    assert together.path.read_bytes() == alone.path.read_bytes()
    assert together.counts == alone.counts
    (bad, *_) = find(Facts(together.counts, cutoff=64))
    assert bad.code == "BAD_ROW"
    assert bad.places[0].startswith("a.jsonl line 701: not JSON")


def test_chunks_are_small_when_rows_are_long(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text((json.dumps({"prompt": "x" * 900_000}) + "\n") * 7)

    chunks = list(read_chunks([path], 256))

    assert [len(chunk.lines) for chunk in chunks] == [3, 3, 1]
    assert [chunk.start for chunk in chunks] == [0, 3, 6]


OF_A_KILLED_PARENT = """
import multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
from workers.training.examples.pool import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        input()
"""


def test_no_process_is_left_behind_by_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(OF_A_KILLED_PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_who_is_stopped_does_not_wait_for_rows_that_are_under_way(encoder: Encoder, tmp_path: Path) -> None:
    slow = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + PLAIN_TEMPLATE
    recipe = pool.Recipe(
        Reading("conversation", slow, template_tokens={"bos_token": "<|bos|>"}),
        encoder.to_json(),
        encoder.eos_id,
        encoder.stop_ids,
        encoder.vocabulary,
        [],
        64,
    )

    def stopped(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
        yield from chunks
        raise KeyboardInterrupt

    chunks = list(read_chunks([write(tmp_path / "a.jsonl", 2)], 1))
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(pool._in_order(recipe, stopped(chunks), 2))
    assert time.monotonic() - started < 8
