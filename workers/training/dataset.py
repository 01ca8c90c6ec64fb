"""Datasets for the trainer: every row tokenized, cut, counted and written to an Arrow file of numbers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from workers.training.encoding import (
    IGNORED,
    NO_STOP,
    PROMPT_CHANGES,
    SPECIALS_TYPED,
    STOP_ADDED,
    Encoder,
    Example,
    MarkedText,
)
from workers.training.errors import TrainingFailure
from workers.training.rows import ConversationReader, RawRow, RowReader, read_rows

ROWS_AT_ONCE = 256
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("row", pa.int32()),
    ]
)
PACK_SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("seq_lengths", pa.list_(pa.int32())),
    ]
)
"""`seq_lengths`: of the examples in a pack. The trainer's collator reads it."""

WARNINGS = {
    PROMPT_CHANGES: "in {count} rows the end of the prompt is tokenized otherwise when the answer follows; "
    "end the prompt where a word ends",
    SPECIALS_TYPED: "{count} rows spell special tokens of the model; they were read as ordinary text",
    STOP_ADDED: "in {count} rows the stop token lies outside the spans that the template marks; "
    "it was trained all the same, so that the model learns to stop",
    NO_STOP: "in {count} rows an answer does not end with a stop token: "
    "the model does not learn to stop there",
}


@dataclass
class Counts:
    """What became of a dataset's rows. Tokens are those that are left after cutting."""

    rows_in: int = 0
    rows_trained: int = 0
    rows_dropped: int = 0
    """Nothing to train was left of them."""
    truncated_rows: int = 0
    examples: int = 0
    """More than rows where an answer needs a text of its own."""
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def warnings(self) -> list[str]:
        found = [text.format(count=self.notes[note]) for note, text in WARNINGS.items() if self.notes[note]]
        if self.rows_dropped:
            found.append(
                f"{self.rows_dropped} rows were dropped: "
                "nothing to train was left of them at the cut-off length"
            )
        return found


@dataclass(frozen=True)
class Tokenized:
    path: Path
    counts: Counts


def tokenize(
    files: Sequence[Path],
    reader: RowReader,
    encoder: Encoder,
    leading: Sequence[int],
    cutoff: int,
    target: Path,
) -> Tokenized:
    """Tokenize JSONL files into `target`, a bounded number of rows in memory at a time.

    Raises TrainingFailure for a row that cannot be used, and when no row is left to train on.
    """
    counts = Counts()
    end = not isinstance(reader, ConversationReader)
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        rows = read_rows(files)
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            kept = list(_encode_batch(batch, reader, encoder, leading, end, cutoff, counts))
            writer.write_batch(_record_batch(kept))
    _check_counts(counts, cutoff)
    return Tokenized(target, counts)


def _encode_batch(
    rows: Sequence[RawRow],
    reader: RowReader,
    encoder: Encoder,
    leading: Sequence[int],
    end: bool,
    cutoff: int,
    counts: Counts,
) -> Iterator[tuple[int, Example]]:
    """The examples worth training, each with the number of its row; counts them all."""
    texts: list[MarkedText] = []
    owners: list[int] = []
    for row in rows:
        found = reader.read(row)
        texts += found
        owners += [counts.rows_in] * len(found)
        counts.rows_in += 1
    by_row: dict[int, list[Example]] = {}
    for owner, example in zip(owners, encoder.encode(texts, leading, end=end), strict=True):
        by_row.setdefault(owner, []).append(example)
    for owner, examples in by_row.items():
        for example in _count_row(examples, cutoff, counts):
            yield owner, example


def _count_row(examples: list[Example], cutoff: int, counts: Counts) -> list[Example]:
    counts.truncated_rows += any(len(example.ids) > cutoff for example in examples)
    counts.notes.update(set[str]().union(*(example.notes for example in examples)))
    cut = [Example(example.ids[:cutoff], example.labels[:cutoff]) for example in examples]
    # The first token is predicted from nothing: a label there trains nothing.
    kept = [example for example in cut if any(label != IGNORED for label in example.labels[1:])]
    counts.rows_trained += bool(kept)
    counts.rows_dropped += not kept
    counts.examples += len(kept)
    for example in kept:
        counts.tokens += len(example.ids)
        counts.trained_tokens += example.trained_tokens
        counts.longest = max(counts.longest, len(example.ids))
    return kept


def _record_batch(kept: Sequence[tuple[int, Example]]) -> pa.RecordBatch:
    columns = [
        pa.array([example.ids for _, example in kept], SCHEMA.field("input_ids").type),
        pa.array([example.labels for _, example in kept], SCHEMA.field("labels").type),
        pa.array([row for row, _ in kept], SCHEMA.field("row").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _check_counts(counts: Counts, cutoff: int) -> None:
    if counts.rows_in == 0:
        raise TrainingFailure("INVALID_ARGUMENT", "EMPTY_DATASET", "the dataset holds no rows")
    if counts.rows_trained:
        return
    if counts.truncated_rows:
        raise TrainingFailure(
            "INVALID_ARGUMENT",
            "ALL_ROWS_TRUNCATED",
            f"the cut-off length of {cutoff} tokens cuts off the answers of all {counts.rows_in} rows; "
            "nothing is left to train",
        )
    raise TrainingFailure(
        "INVALID_ARGUMENT",
        "NOTHING_TO_TRAIN",
        f"none of the {counts.rows_in} rows has an answer to train on",
    )


def split_rows(rows: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions of examples to train on and to evaluate on; examples of one row stay together.

    At least one row is held out and at least one is left; of a single row, none is held out.
    """
    distinct = sorted(set(rows))
    count = min(max(1, round(len(distinct) * share)), len(distinct) - 1)
    held_out = set(random.Random(seed).sample(distinct, count))
    return (
        [position for position, row in enumerate(rows) if row not in held_out],
        [position for position, row in enumerate(rows) if row in held_out],
    )


def open_examples(tokenized: Tokenized) -> Any:
    """The examples as a `datasets.Dataset`, read from the disk as they are needed."""
    from datasets import Dataset  # Slow to import, and not needed to tokenize.

    return Dataset.from_file(str(tokenized.path))


def pack_examples(examples: Any, tokens: int, target: Path) -> Any:
    """The examples laid end to end, each pack of at most `tokens` tokens, written to `target`.

    In the order of the dataset, so that the same examples always make the same packs. No example is longer
    than a pack.
    """
    from datasets import Dataset

    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, PACK_SCHEMA) as writer:
        packs = _packs(examples, tokens)
        while batch := list(islice(packs, ROWS_AT_ONCE)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=PACK_SCHEMA))
    return Dataset.from_file(str(target))


def _packs(examples: Iterable[dict[str, list[int]]], tokens: int) -> Iterator[dict[str, list[int]]]:
    pack: dict[str, list[int]] = {name: [] for name in PACK_SCHEMA.names}
    for example in examples:
        length = len(example["input_ids"])
        if pack["input_ids"] and len(pack["input_ids"]) + length > tokens:
            yield pack
            pack = {name: [] for name in PACK_SCHEMA.names}
        pack["input_ids"] += example["input_ids"]
        pack["labels"] += example["labels"]
        pack["seq_lengths"].append(length)
    yield pack
