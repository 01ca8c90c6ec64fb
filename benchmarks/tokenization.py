"""Tokenizing a dataset as the trainer does: rows a second, and the most memory that all processes held.

`python -m benchmarks.tokenization --rows 300000`. The rows are conversations of turns of like length, made as
they are written; the tokenizer and the template are those of the quickstart's model. `--turns 1` makes short
ones, with which to see how memory grows with their number.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace

MODEL = Path(__file__).resolve().parents[1] / "quickstart" / "model"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Measured:
    rows: int
    tokens: int
    file_bytes: int
    seconds: float
    cpu_seconds: float
    """Of all processes: what counts where others use the machine too."""
    peak_bytes: int
    """Of resident memory, all processes together; pages that they share are counted for each."""

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


def measure(rows: int, turns: int, folder: Path) -> Measured:
    """Tokenize so many rows into `folder`."""
    from workers.training.examples.reading import reading_of
    from workers.training.examples.tokenizer import load_tokenizer
    from workers.training.preflight.report import Data, check_data

    path = write_rows(folder / "rows.jsonl", rows, turns)
    tokenizer = load_tokenizer(MODEL, "quickstart")
    spec = SimpleNamespace(
        kind="conversation", jinja_template=None, input_template=None, output_template=None
    )
    data = Data(reading_of(spec, tokenizer), [path], [], 1024)
    with highest_memory() as peak:
        started, used = time.monotonic(), cpu_seconds()
        counts = check_data(data, MODEL, tokenizer, folder).train
        seconds, used = time.monotonic() - started, cpu_seconds() - used
    assert counts.rows_trained == rows
    return Measured(rows, counts.tokens, path.stat().st_size, seconds, used, peak.bytes)


def cpu_seconds() -> float:
    """Of this process, and of those that it has seen to the end."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def write_rows(path: Path, rows: int, turns: int) -> Path:
    """Conversations of which no two are the same."""
    with path.open("w") as file:
        for number in range(rows):
            messages = [
                {"role": role, "content": f"{words} {number} {turn}"}
                for turn in range(turns)
                for role, words in (
                    ("user", "New ticket, customer Tandem, queue hardware: the screen stays black, number"),
                    ("assistant", "The ticket goes to the queue for screens; its number is"),
                )
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


@dataclass
class Peak:
    bytes: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def highest_memory() -> Iterator[Peak]:
    """Looks at this process and all below it many times a second."""
    peak = Peak()

    def look() -> None:
        while not peak.ended.wait(LOOK_SECONDS):
            peak.bytes = max(peak.bytes, sum(map(resident_bytes, family(os.getpid()))))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        peak.ended.set()
        thread.join()


def family(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for thread in Path(f"/proc/{pid}/task").iterdir():
            if thread.name != str(pid):
                children += (thread / "children").read_text().split()
    except OSError:  # it ended while we looked
        return
    for child in children:
        yield from family(int(child))


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--turns", type=int, default=3, help="Of each row: a question and an answer.")
    chosen = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(chosen.rows, chosen.turns, Path(folder))
    print(json.dumps({**asdict(found), "rows_per_second": round(found.rows_per_second)}, indent=2))


if __name__ == "__main__":
    main()
