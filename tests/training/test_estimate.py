"""Steps and tokens that are told before training are those that the trainer comes to."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.training.test_config import SOURCE, spec
from workers.training.examples.counts import Counts
from workers.training.examples.dataset import SCHEMA, Tokenized, open_examples, pack_examples, split_rows
from workers.training.examples.pairs import pack_pairs, pair_up
from workers.training.preflight.estimate import estimate

PREFERENCE = {"kind": "preference", "preference": {"method": "dpo"}}
Write = Callable[..., Tokenized]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes examples of these lengths as the check of the data does, so many of each row, in two batches."""

    def examples(lengths: Sequence[int], of_a_row: int = 1) -> Tokenized:
        path = tmp_path / "train.arrow"
        columns = [[list(range(length)) for length in lengths]] * 2
        rows = [number // of_a_row for number in range(len(lengths))]
        half = len(lengths) // 2 // of_a_row * of_a_row
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
            for part in (slice(0, half), slice(half, None)):
                batch = [
                    pa.array(column[part], kind.type)
                    for column, kind in zip([*columns, rows], SCHEMA, strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(batch, schema=SCHEMA))
        return Tokenized(path, Counts())

    return examples


def lengths(count: int, most: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randint(2, most) for _ in range(count)]


def test_rows_of_more_than_half_a_pack_are_a_pack_each(write: Write) -> None:
    packed = spec(batch_tokens=1000, batch_size=1, micro_batch_size=1, cutoff_length=1000)

    found = estimate(packed, write([600] * 100).path)

    assert found == {"steps": 100, "steps_per_epoch": 100, "tokens": 60_000}


@pytest.mark.parametrize("seed", range(5))
def test_packs_are_counted_as_the_trainer_makes_them(write: Write, tmp_path: Path, seed: int) -> None:
    examples = write(lengths(70, 50, seed))
    packed = spec(batch_tokens=90, batch_size=2, micro_batch_size=1, cutoff_length=50)

    packs = pack_examples(open_examples(examples), 90, tmp_path / "packs.arrow")

    assert estimate(packed, examples.path)["steps_per_epoch"] == math.ceil(len(packs) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_packs_of_pairs_are_counted_as_the_trainer_makes_them(
    write: Write, tmp_path: Path, seed: int
) -> None:
    examples = write(lengths(60, 40, seed), of_a_row=2)
    packed = spec(batch_tokens=170, batch_size=1, micro_batch_size=1, cutoff_length=40, **PREFERENCE)

    pairs = open_examples(pair_up(examples, tmp_path / "pairs.arrow"))
    packs = pack_pairs(pairs, 170, tmp_path / "packs.arrow")

    found = estimate(packed, examples.path)
    assert found["steps"] == len(packs) < 30
    assert found["tokens"] == sum(lengths(60, 40, seed))


@pytest.mark.parametrize(
    ("settings", "of_a_row"), [({}, 1), ({}, 3), (PREFERENCE, 2)], ids=["rows", "examples", "pairs"]
)
def test_the_very_rows_that_are_held_out_are_left_out(
    write: Write, settings: dict[str, Any], of_a_row: int
) -> None:
    found = lengths(60, 50, 7)
    examples = write(found, of_a_row)
    rows = range(60 // of_a_row) if settings else [number // of_a_row for number in range(60)]
    train, held_out = split_rows(rows, 0.2, seed=5)
    each = of_a_row if settings else 1
    trained = [length for place in train for length in found[place * each : (place + 1) * each]]

    job = spec(evaluation=True, evaluation_split=0.2, seed=5, batch_size=4, epochs=2, **settings)

    told = estimate(job, examples.path)
    assert held_out
    assert (told["steps_per_epoch"], told["tokens"]) == (math.ceil(len(train) / 4), 2 * sum(trained))


def test_rows_are_held_out_only_where_the_job_does_so(write: Write) -> None:
    path = write([10] * 40).path

    for settings in ({}, {"evaluation": True, "evaluation_dataset": SOURCE}):
        assert estimate(spec(**settings), path)["tokens"] == 400


def test_steps_are_rounded_up_as_those_of_the_plan(write: Write) -> None:
    path = write([10] * 20).path

    assert estimate(spec(epochs=1.5), path) == {"steps": 5, "steps_per_epoch": 3, "tokens": 300}


def test_nothing_to_train_takes_no_step(write: Write) -> None:
    nothing = {"steps": 0, "steps_per_epoch": 0, "tokens": 0}

    assert estimate(spec(evaluation=True), write([]).path) == nothing
