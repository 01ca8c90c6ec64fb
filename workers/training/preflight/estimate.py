"""What training would take: steps and tokens, counted on the examples as the trainer batches them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workers.training.config import JobSpec
from workers.training.examples.dataset import split_rows
from workers.training.plan import plan_steps


def estimate(spec: JobSpec, examples: Path) -> dict[str, int]:
    """Steps, and tokens of all epochs. `examples`: the file that the check of the data has written."""
    lengths, rows = lengths_and_rows(examples)
    if spec.preference:
        # Both answers of a pair stand one behind the other.
        lengths, rows = lengths.reshape(-1, 2), rows[::2]
    lengths = lengths[trained_on(spec, rows)]
    if not len(lengths):
        return {"steps": 0, "steps_per_epoch": 0, "tokens": 0}
    plan = plan_steps(spec, batch_items(spec, lengths), micro=1)
    return {
        "steps": plan.max_steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "tokens": round(int(lengths.sum()) * spec.epochs),
    }


def lengths_and_rows(examples: Path) -> tuple[Any, Any]:
    """Of each example its tokens, and the number of its row."""
    with pa.memory_map(str(examples)) as source, pa.ipc.open_stream(source) as batches:
        found = [(pc.list_value_length(batch["input_ids"]), batch["row"]) for batch in batches]
    columns = zip(*found, strict=True) if found else ([], [])
    lengths, rows = (np.concatenate([np.empty(0, np.int64), *column]) for column in columns)
    return lengths.astype(np.int64), rows.astype(np.int64)


def trained_on(spec: JobSpec, rows: Any) -> Any:
    """The places of what is not held out."""
    if not len(rows) or not spec.evaluates or not spec.evaluation_split or spec.evaluation_dataset:
        return np.arange(len(rows))
    return np.asarray(split_rows(rows, spec.evaluation_split, spec.seed)[0])


def batch_items(spec: JobSpec, lengths: Any) -> int:
    """What batches are made of: examples or, where a batch is measured in tokens, packs of them."""
    if not spec.batch_tokens:
        return len(lengths)
    if spec.preference:
        return count_pair_packs(lengths.max(axis=1).tolist(), spec.batch_tokens)
    return count_packs(lengths.tolist(), spec.batch_tokens)


def count_packs(lengths: Iterable[int], tokens: int) -> int:
    """As many as `dataset.pack_examples` makes."""
    packs, held = 1, 0
    for length in lengths:
        if held and held + length > tokens:
            packs, held = packs + 1, 0
        held += length
    return packs


def count_pair_packs(longer: Iterable[int], tokens: int) -> int:
    """As many as `pairs.pack_pairs` makes. `longer`: the length of each pair's longer answer."""
    packs, pairs, longest = 1, 0, 0
    for length in longer:
        if pairs and 2 * (pairs + 1) * max(longest, length) > tokens:
            packs, pairs, longest = packs + 1, 0, 0
        pairs, longest = pairs + 1, max(longest, length)
    return packs
