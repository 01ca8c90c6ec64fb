"""What others see of a running job: progress.json once a second, metrics.jsonl, and now and then a plot.

Written by a thread that only ever holds the newest state, so that a slow or absent object store never holds
up training.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from controlplane.storage import ObjectStore, StorageUnavailable

log = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 1.0
LAST_WRITE_SECONDS = 20.0
PLOT_SECONDS = 60.0
PLOT_SHARE = 50
"""Training takes at least so many times the time that its plots take."""

DrawPlot = Callable[[list[dict[str, Any]]], Mapping[str, bytes]]
"""From the metrics to files, by their names."""


@dataclass(frozen=True)
class Progress:
    phase: str = "STAGING"
    step: int = 0
    max_steps: int = 0
    rows: int = 0
    """Rows of one epoch."""
    epoch: float = 0.0
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    reward_accuracy: float | None = None
    """Of pairs: the share of which the better answer has become the likelier one."""
    reward_margin: float | None = None
    tokens_seen: int = 0
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    peak_memory_bytes: int = 0
    """Of the trainer, on the machine."""
    gpu_memory_bytes: int = 0
    """The most that was allocated on its accelerator; 0 without one."""
    warnings: tuple[str, ...] = ()
    """What the owner should know, see `Job.warn`."""
    wandb_url: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    """What it runs with, see `effective.py`."""


class ProgressReport:
    """The job's progress and its metrics. A context manager; leaving it writes the last state."""

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        interval: float = SECONDS_BETWEEN_WRITES,
        draw: DrawPlot | None = None,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._interval = interval
        self._changed = threading.Condition()
        self._now = Progress()
        self._pending = True
        self._metrics: list[dict[str, Any]] = []
        self._metrics_pending = False
        self._draw = draw
        self._drawn = 0
        """How many lines of metrics the last plot shows."""
        self._draw_at = time.monotonic() + PLOT_SECONDS
        self.on_metrics: Callable[[dict[str, Any]], None] = lambda line: None
        """Told of every new line."""
        self._closed = False
        self._thread = threading.Thread(target=self._write_changes, name="progress", daemon=True)

    @property
    def now(self) -> Progress:
        return self._now

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return list(self._metrics)

    def update(self, **changes: Any) -> None:
        """Change fields of the progress; the write happens soon, elsewhere."""
        with self._changed:
            self._now = replace(self._now, **changes)
            self._pending = True
            self._changed.notify()

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl; it has a `step`."""
        with self._changed:
            self._metrics.append(line)
            self._metrics_pending = True
            self._changed.notify()
        self.on_metrics(line)

    def draw_soon(self) -> None:
        """Have the plot drawn now, while others go on."""
        with self._changed:
            self._draw_at = 0.0
            self._pending = True
            self._changed.notify()

    def save_metrics(self, path: Path) -> None:
        """Write the metrics so far to a file that goes with a checkpoint."""
        path.write_text(_as_lines(self._metrics))

    def resume_metrics(self, path: Path) -> None:
        """Take up the metrics that `save_metrics` wrote."""
        with self._changed:
            self._metrics = [json.loads(line) for line in path.read_text().splitlines()]
            self._metrics_pending = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changed:
            self._closed = True
            # Who was asked to stop has no time for pictures; the last one stays.
            self._draw_at = 0.0 if kind is None else math.inf
            self._changed.notify()
        self._thread.join(LAST_WRITE_SECONDS)

    def _write_changes(self) -> None:
        while not self._closed:
            started = time.monotonic()
            self._write_once()
            self._draw_if_due()
            with self._changed:
                self._changed.wait_for(lambda: self._closed, self._interval - (time.monotonic() - started))
                self._changed.wait_for(lambda: self._closed or self._pending or self._metrics_pending)
        self._write_once()
        self._draw_if_due()

    def _write_once(self) -> None:
        with self._changed:
            progress = self._now if self._pending else None
            metrics = list(self._metrics) if self._metrics_pending else None
            self._pending = self._metrics_pending = False
        try:
            if metrics is not None:
                self._put("metrics.jsonl", _as_lines(metrics))
            if progress is not None:
                now = datetime.now(UTC).isoformat()
                self._put("progress.json", json.dumps({**asdict(progress), "updated_at": now}))
        except StorageUnavailable as error:
            log.warning("the progress could not be written: %s", error)
            with self._changed:
                self._pending = True
                self._metrics_pending = self._metrics_pending or metrics is not None

    def _draw_if_due(self) -> None:
        metrics = self.metrics
        if self._draw is None or len(metrics) == self._drawn or time.monotonic() < self._draw_at:
            return
        started = time.monotonic()
        self._drawn = len(metrics)
        try:
            for name, content in self._draw(metrics).items():
                self._store.put_bytes(self._prefix + name, content)
        except Exception:
            log.exception("the plot could not be drawn")  # No reason to lose a job.
        self._draw_at = time.monotonic() + max(PLOT_SECONDS, PLOT_SHARE * (time.monotonic() - started))

    def _put(self, name: str, text: str) -> None:
        self._store.put_bytes(self._prefix + name, text.encode())


def _as_lines(metrics: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in metrics)
