"""Tokenizing on several processors: chunks go out to processes and come back in their order.

At most a few chunks for each process are under way, so memory does not grow with the dataset.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
from tokenizers import Tokenizer

from workers.training.examples.counts import Counts
from workers.training.examples.dataset import ROWS_AT_ONCE, Tokenized, Tokenizing, tokenize, write_examples
from workers.training.examples.encoding import Encoder
from workers.training.examples.reading import Reading
from workers.training.examples.rows import Chunk, RowReader, read_chunks

POOLED_BYTES = 16 * 1024 * 1024
"""Smaller datasets are tokenized before other processes have started."""
MAX_PROCESSES = 4
CHUNKS_AHEAD = 2
"""Of each process."""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Recipe:
    """What a process needs to tokenize as this one would."""

    reading: Reading
    tokenizer: str
    eos_id: int | None
    stop_ids: frozenset[int]
    vocabulary: int
    leading: list[int]
    cutoff: int


def tokenize_files(
    files: Sequence[Path],
    reading: Reading,
    reader: RowReader,
    encoder: Encoder,
    leading: list[int],
    cutoff: int,
    target: Path,
) -> Tokenized:
    """As `dataset.tokenize`; a large dataset on as many processors as there are for us."""
    processes = min(MAX_PROCESSES, len(os.sched_getaffinity(0)))
    if processes == 1 or sum(path.stat().st_size for path in files) < POOLED_BYTES:
        return tokenize(files, reader, encoder, leading, cutoff, target)
    recipe = Recipe(
        reading, encoder.to_json(), encoder.eos_id, encoder.stop_ids, encoder.vocabulary, leading, cutoff
    )
    return write_examples(target, _in_order(recipe, read_chunks(files, ROWS_AT_ONCE), processes))


def _in_order(
    recipe: Recipe, chunks: Iterator[Chunk], processes: int
) -> Iterator[tuple[pa.RecordBatch, Counts]]:
    under_way: deque[Future[tuple[pa.RecordBatch, Counts]]] = deque()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _begin, (recipe,)) as pool:
        try:
            for chunk in chunks:
                under_way.append(pool.submit(_run, chunk))
                if len(under_way) >= processes * CHUNKS_AHEAD:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BaseException:
            # Nobody waits for the rest: a template may take its whole time on every row of a chunk.
            end_all(multiprocessing.active_children())
            raise


def end_all(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.kill()


_open = ExitStack()
_tokenizing: Tokenizing | None = None


def _begin(recipe: Recipe) -> None:
    """Once in each process. Threads of the tokenizer's own would only get in each other's way."""
    global _tokenizing
    end_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = SimpleNamespace(
        backend_tokenizer=Tokenizer.from_str(recipe.tokenizer), eos_token_id=recipe.eos_id
    )
    encoder = Encoder(tokenizer, recipe.stop_ids, recipe.vocabulary)
    reader = _open.enter_context(recipe.reading.open(encoder))
    _tokenizing = Tokenizing(reader, encoder, recipe.leading, recipe.cutoff)


def end_with_parent() -> None:
    """Else it would wait for ever for chunks of a parent that was killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():  # It was quicker.
        os.kill(os.getpid(), signal.SIGKILL)


def _run(chunk: Chunk) -> tuple[pa.RecordBatch, Counts]:
    assert _tokenizing is not None
    return _tokenizing.run(chunk)
