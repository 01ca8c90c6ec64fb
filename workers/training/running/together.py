"""What the ranks of a job tell each other. A job of one process is alone, and all this comes to nothing."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate.data_loader import SeedableRandomSampler  # type: ignore[import-untyped]
from torch.utils.data import Sampler
from transformers import TrainerCallback

from workers.training.errors import Interrupted
from workers.training.running.ranks import Rank
from workers.training.running.stop import StopRequest

T = TypeVar("T")

PATIENCE = timedelta(hours=24)
"""The first rank may tokenize for hours. Whose partner has died is ended by their parent."""
DECISIONS = ("should_save", "should_training_stop", "should_epoch_stop")


def join() -> Rank:
    """Meet the other ranks. Numbers go between accelerators, words between the processors."""
    rank = Rank.of(os.environ)
    if not rank.is_alone and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        if torch.cuda.is_available():
            torch.cuda.set_device(rank.number)
    return rank


def leave(rank: Rank) -> None:
    if not rank.is_alone and dist.is_initialized():
        dist.destroy_process_group()


def from_first(rank: Rank, work: Callable[[], T]) -> T:
    """What `work` returns in the first rank, in all of them; they wait for it."""
    if rank.is_alone:
        return work()
    told: list[Any] = [work() if rank.is_first else None]
    dist.broadcast_object_list(told, src=0)
    found: T = told[0]
    return found


def sum_of_ranks(numbers: Mapping[str, float]) -> Counter[str]:
    """By name; every rank has the sums."""
    told: list[Any] = [dict(numbers)]
    if dist.is_initialized():
        told *= dist.get_world_size()
        dist.all_gather_object(told, dict(numbers))
    sums = Counter[str]()
    for numbers_of_one in told:
        sums.update(numbers_of_one)
    return sums


class StopOfAll:
    """What the first rank is asked, as all of them hear of it: they look in the same places."""

    def __init__(self, rank: Rank, stop: StopRequest) -> None:
        self._rank = rank
        self._stop = stop

    @property
    def requested(self) -> bool:
        return from_first(self._rank, lambda: self._stop.requested)

    def carry_out(self) -> None:
        if self.requested:
            raise Interrupted


class WaitForRanks(TrainerCallback):
    """A checkpoint is whole once every rank has written its part. The first of the callbacks."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        dist.barrier()


class FollowFirst(TrainerCallback):
    """What the first rank's callbacks decide is done by all. Comes after them."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._follow(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._follow(control)

    def _follow(self, control: Any) -> None:
        decided = from_first(self._rank, lambda: {name: getattr(control, name) for name in DECISIONS})
        for name, value in decided.items():
            setattr(control, name, value)


class EvenSampler(Sampler[int]):
    """All examples in random order, then empty ones until every rank's last micro batch is full.

    The order is that of a job of one process, so that its steps take the same examples. It asks which epoch
    it is: in a job that goes on from a checkpoint the trainer's word does not reach it.
    """

    def __init__(self, examples: int, rows_at_once: int, seed: int, epoch: Callable[[], int]) -> None:
        self._shuffled = SeedableRandomSampler(range(examples), data_seed=seed)
        self._examples = examples
        self._empty = -examples % rows_at_once
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self._shuffled.set_epoch(self._epoch())
        yield from self._shuffled
        yield from [self._examples] * self._empty

    def __len__(self) -> int:
        return self._examples + self._empty


def even_sampler(trainer: Any) -> EvenSampler:
    """Of a trainer of several ranks, whose dataset ends with the empty example (`with_an_empty_one`)."""
    arguments, examples = trainer.args, len(trainer.train_dataset) - 1
    rows_at_once = arguments.per_device_train_batch_size * arguments.world_size
    steps = math.ceil(examples / (rows_at_once * arguments.gradient_accumulation_steps))
    return EvenSampler(
        examples, rows_at_once, arguments.data_seed, lambda: int(trainer.state.global_step // steps)
    )


def with_an_empty_one(examples: Any, empty: Mapping[str, Any]) -> Any:
    """The examples and one more, of which nothing is trained. What is not given of it is 0."""
    from datasets import Dataset, concatenate_datasets

    row = {name: [empty.get(name, 0)] for name in examples.column_names}
    return concatenate_datasets([examples, Dataset.from_dict(row, features=examples.features)])
