"""Datasets for the trainer: every row tokenized, cut, counted and written to an Arrow file of numbers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workers.training.errors import RowFailure
from workers.training.examples.counts import LENGTH_STEP, Counts
from workers.training.examples.encoding import IGNORED, Encoder, Example, MarkedText
from workers.training.examples.preference_rows import PreferenceReader
from workers.training.examples.rows import (
    Chunk,
    ClassificationReader,
    ConversationReader,
    RawRow,
    RowReader,
    read_chunks,
)

ROWS_AT_ONCE = 256
ROWS_CUT = "ROWS_CUT"
ROWS_DROPPED = "ROWS_DROPPED"
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("row", pa.int32()),
    ]
)
ROWS_COUNTED_AT_ONCE = 10_000
PACK_SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("seq_lengths", pa.list_(pa.int32())),
    ]
)
"""`seq_lengths`: of the examples in a pack. The trainer's collator reads it."""


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
    """Write the examples of all rows to `target`, a few hundred rows in memory at a time.

    Rows that cannot be used are left out and counted; `findings` says what to make of them.
    """
    tokenizing = Tokenizing(reader, encoder, leading, cutoff)
    return write_examples(target, map(tokenizing.run, read_chunks(files, ROWS_AT_ONCE)))


def write_examples(target: Path, parts: Iterable[tuple[pa.RecordBatch, Counts]]) -> Tokenized:
    """Write what became of a dataset's chunks, in their order, and add up their counts."""
    counts = Counts()
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for batch, found in parts:
            writer.write_batch(batch)
            counts.add(found)
    return Tokenized(target, counts)


class Tokenizing:
    """From the lines of a chunk to the examples that are worth training, each with the number of its row."""

    def __init__(self, reader: RowReader, encoder: Encoder, leading: Sequence[int], cutoff: int) -> None:
        self._reader = reader
        self._encoder = encoder
        self._leading = leading
        self._end = not isinstance(reader, ConversationReader)
        self._pairs = isinstance(reader, PreferenceReader)
        self._cutoff = cutoff

    def run(self, chunk: Chunk) -> tuple[pa.RecordBatch, Counts]:
        counts = Counts(rows_in=len(chunk.lines), file_starts={chunk.file: chunk.file_start})
        good = list(self._read(chunk, counts))
        found = iter(self._reader.read_many([row for _, row in good]))
        texts: list[tuple[int, RawRow, list[MarkedText]]] = []
        for number, row in good:
            read = next(found)
            if isinstance(read, RowFailure):
                counts.fail(read.reason, row.place, read.message)
            else:
                texts.append((number, row, read))
        return self._encode(texts, counts), counts

    def _read(self, chunk: Chunk, counts: Counts) -> Iterator[tuple[int, RawRow]]:
        for number, row in chunk.rows():
            if isinstance(row, RowFailure):
                counts.fail(row.reason, row.place, row.message)
            else:
                yield number, row

    def _encode(
        self, texts: Sequence[tuple[int, RawRow, list[MarkedText]]], counts: Counts
    ) -> pa.RecordBatch:
        flat = [text for _, _, read in texts for text in read]
        examples = iter(self._encoder.encode(flat, self._leading, end=self._end))
        kept: list[tuple[int, Example]] = []
        for number, row, read in texts:
            _count_text(number, read, counts)
            if isinstance(self._reader, ClassificationReader):
                counts.add_label(self._reader.label(row))
            found = list(islice(examples, len(read)))
            worth = _count_row(row.place, found, self._cutoff, counts, self._pairs)
            kept += [(number, example) for example in worth]
        return _record_batch(kept)


def _count_text(number: int, texts: Sequence[MarkedText], counts: Counts) -> None:
    whole, answers = blake2b(digest_size=8), blake2b(digest_size=8)
    for text in texts:
        whole.update(f"{text.trained}{text.text}".encode(errors="surrogatepass"))
        for start, end in text.trained:
            answers.update(text.text[start:end].encode(errors="surrogatepass"))
    counts.digests.append(int.from_bytes(whole.digest(), "little"))
    counts.row_numbers.append(number)
    counts.add_answer(answers.digest())


def _count_row(
    place: str, examples: list[Example], cutoff: int, counts: Counts, pairs: bool
) -> list[Example]:
    """The examples that are worth training, cut; of a pair both, while they differ, or none."""
    longest = max(len(example.ids) for example in examples)
    counts.longest_row = max(counts.longest_row, longest)
    counts.lengths[-(-longest // LENGTH_STEP) * LENGTH_STEP] += 1
    if longest > cutoff:
        counts.truncated_rows += 1
        counts.note(ROWS_CUT, place)
    for note in set[str]().union(*(example.notes for example in examples)):
        counts.note(note, place)
    cut = [
        Example(example.ids[:cutoff], example.labels[:cutoff]) if len(example.ids) > cutoff else example
        for example in examples
    ]
    # The first token is predicted from nothing: a label there trains nothing.
    kept = [example for example in cut if example.trained_tokens > (example.labels[0] != IGNORED)]
    if pairs and (len(kept) < len(cut) or kept[0].ids == kept[1].ids):
        kept = []
    counts.rows_trained += bool(kept)
    if not kept:
        counts.rows_dropped += 1
        counts.note(ROWS_DROPPED, place)
    counts.examples += len(kept)
    counts.cut_tokens += sum(max(0, len(example.ids) - cutoff) for example in examples)
    for example in kept:
        counts.tokens += len(example.ids)
        counts.trained_tokens += example.trained_tokens
        counts.longest = max(counts.longest, len(example.ids))
    return kept


def _record_batch(kept: Sequence[tuple[int, Example]]) -> pa.RecordBatch:
    columns = [
        _lists([example.ids for _, example in kept]),
        _lists([example.labels for _, example in kept]),
        pa.array([row for row, _ in kept], SCHEMA.field("row").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _lists(values: Sequence[list[int]]) -> pa.ListArray:
    """A column of lists, made of one array: Arrow's own way looks at each number as an object."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
    flat = np.fromiter(chain.from_iterable(values), np.int32, int(ends[-1]))
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat))


def count_tokens(examples: Any) -> tuple[int, int]:
    """(all tokens, trained tokens) of a dataset of examples, or of pairs of them."""
    tokens = trained = 0
    columns = [name for name in examples.column_names if name.endswith("labels")]
    for batch in examples.with_format("arrow").iter(ROWS_COUNTED_AT_ONCE):
        for name in columns:
            labels = pc.list_flatten(batch[name])
            tokens += len(labels)
            trained += pc.sum(pc.not_equal(labels, IGNORED)).as_py() or 0
    return tokens, trained


def split_rows(rows: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions of examples to train on and to evaluate on; examples of one row stay together.

    At least one row is held out and at least one is left; of a single row, none is held out.
    """
    numbers = np.asarray(rows)
    distinct = np.unique(numbers)
    count = min(max(1, round(len(distinct) * share)), len(distinct) - 1)
    chosen = distinct[random.Random(seed).sample(range(len(distinct)), count)]
    held_out = np.isin(numbers, chosen)
    return np.flatnonzero(~held_out).tolist(), np.flatnonzero(held_out).tolist()


def spread(count: int, most: int) -> list[int]:
    """The places of at most `most` of so many, evenly spread."""
    return [i * count // most for i in range(most)] if count > most else list(range(count))


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
