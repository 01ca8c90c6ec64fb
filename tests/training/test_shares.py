"""Which examples each process of a job takes: together those of one process, in its order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler, SkipBatchSampler
from torch.utils.data import BatchSampler

from workers.training.running.together import EvenSampler

EXAMPLES, SEED = 21, 7


def shares(processes: int, micro: int, epoch: int, skipped: int = 0) -> list[list[list[int]]]:
    """The micro batches of each process in an epoch, as accelerate hands them out."""

    def of(process: int) -> Iterator[list[int]]:
        sampler = EvenSampler(EXAMPLES, micro * processes, SEED, lambda: epoch)
        shard = BatchSamplerShard(BatchSampler(sampler, micro, False), processes, process)
        yield from SkipBatchSampler(shard, skipped)

    return [list(of(process)) for process in range(processes)]


def order_of_one(epoch: int) -> list[int]:
    sampler = SeedableRandomSampler(range(EXAMPLES), data_seed=SEED)
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("epoch", [0, 1, 5])
@pytest.mark.parametrize(("processes", "micro"), [(1, 4), (2, 2), (2, 4), (4, 3), (8, 4)])
def test_a_step_has_the_examples_of_one_process_and_empty_ones_at_the_end(
    processes: int, micro: int, epoch: int
) -> None:
    found = shares(processes, micro, epoch)
    assert len({len(batches) for batches in found}) == 1
    steps = [[example for batch in step for example in batch] for step in zip(*found, strict=True)]
    taken = [example for step in steps for example in step if example != EXAMPLES]
    assert taken == order_of_one(epoch)
    assert all(EXAMPLES not in step for step in steps[:-1])
    assert all(len(step) == processes * micro for step in steps)


def test_going_on_in_the_middle_of_an_epoch_keeps_its_order() -> None:
    whole, rest = shares(2, 2, epoch=3), shares(2, 2, epoch=3, skipped=2)
    assert rest == [batches[2:] for batches in whole]
