"""Large datasets are tokenized by several processes: the same bytes and counts, whatever their number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.training.conftest import PLAIN_TEMPLATE
from workers.training.examples import pool
from workers.training.examples.dataset import ROWS_AT_ONCE, tokenize
from workers.training.examples.encoding import Encoder
from workers.training.examples.pool import tokenize_files
from workers.training.examples.reading import Reading
from workers.training.examples.rows import read_chunks
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
