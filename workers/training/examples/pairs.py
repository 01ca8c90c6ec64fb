"""Pairs of answers for the trainer: what was asked with the better answer, and with the worse one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from workers.training.examples.dataset import ROWS_AT_ONCE, Tokenized
from workers.training.examples.encoding import IGNORED

SIDES = ("chosen", "rejected")
_IDS = pa.list_(pa.int32())
PAIR = {f"{side}_{part}": _IDS for side in SIDES for part in ("ids", "labels")}
SCHEMA = pa.schema([*PAIR.items(), ("row", pa.int32())])
EMPTY_PAIR = {
    f"{side}_{part}": [0, 0] if part == "ids" else [IGNORED] * 2
    for side in SIDES
    for part in ("ids", "labels")
}
"""Two texts that train nothing."""
PACK_SCHEMA = pa.schema([("pairs", pa.list_(pa.struct(list(PAIR.items()))))])


def pair_up(tokenized: Tokenized, target: Path) -> Tokenized:
    """The examples of pairs, which stand one behind the other, as pairs of one example each."""
    with (
        pa.memory_map(str(tokenized.path)) as source,
        pa.ipc.open_stream(source) as examples,
        pa.OSFile(str(target), "wb") as sink,
        pa.ipc.new_stream(sink, SCHEMA) as writer,
    ):
        for batch in examples:
            writer.write_batch(_paired(batch))
    return Tokenized(target, tokenized.counts)


def _paired(batch: pa.RecordBatch) -> pa.RecordBatch:
    """No pair lies across two batches: each batch holds whole rows of the dataset."""
    places = pa.array(range(0, batch.num_rows, 2)), pa.array(range(1, batch.num_rows, 2))
    columns = [
        batch.column(column).take(places[number])
        for number in range(len(SIDES))
        for column in ("input_ids", "labels")
    ]
    return pa.RecordBatch.from_arrays([*columns, batch.column("row").take(places[0])], schema=SCHEMA)


def pack_pairs(pairs: Any, tokens: int, target: Path) -> Any:
    """Packs of whole pairs, in the order of the dataset, written to `target`.

    A pack takes as many tokens as its pairs do when every answer is filled up to the longest: at most
    `tokens`, which hold any single pair.
    """
    from datasets import Dataset

    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, PACK_SCHEMA) as writer:
        packs = _packs(pairs, tokens)
        while batch := list(islice(packs, ROWS_AT_ONCE)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=PACK_SCHEMA))
    return Dataset.from_file(str(target))


def _packs(pairs: Iterable[dict[str, Any]], tokens: int) -> Iterator[dict[str, list[dict[str, Any]]]]:
    pack: list[dict[str, Any]] = []
    longest = 0
    for pair in pairs:
        length = max(len(pair[f"{side}_ids"]) for side in SIDES)
        if pack and 2 * (len(pack) + 1) * max(longest, length) > tokens:
            yield {"pairs": pack}
            pack, longest = [], 0
        pack.append({name: pair[name] for name in PAIR})
        longest = max(longest, length)
    yield {"pairs": pack}


class PairCollator:
    """Batches as trl's preference trainer reads them: all better answers, then all worse ones, padded.

    Empty pairs are left out, but for one where there is no other.
    """

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        given = [pair for item in items for pair in item.get("pairs", [item])]
        pairs = [pair for pair in given if not is_empty(pair)] or given[:1]
        ids = [pair[f"{side}_ids"] for side in SIDES for pair in pairs]
        labels = [pair[f"{side}_labels"] for side in SIDES for pair in pairs]
        return {
            "input_ids": _padded(ids, self._pad_id),
            "attention_mask": _padded([[1] * len(found) for found in ids], 0),
            "completion_mask": _padded([[int(label != IGNORED) for label in found] for found in labels], 0),
        }


def is_empty(pair: Mapping[str, Any]) -> bool:
    return bool(pair["chosen_labels"] == EMPTY_PAIR["chosen_labels"])


def _padded(rows: list[list[int]], filling: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [filling] * (width - len(row)) for row in rows])
