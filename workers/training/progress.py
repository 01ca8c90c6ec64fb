"""What others see of a running job: progress.json at most once a second, and metrics.jsonl.

Written by a thread that only ever holds the newest state, so that a slow or absent object store never holds
up training.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from controlplane.storage import ObjectStore, StorageUnavailable

log = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 1.0
LAST_WRITE_SECONDS = 20.0


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
    tokens_seen: int = 0
    tokens_per_second: float | None = None
    eta_seconds: float | None = None


class ProgressReport:
    """The job's progress and its metrics. A context manager; leaving it writes the last state."""

    def __init__(self, store: ObjectStore, prefix: str, interval: float = SECONDS_BETWEEN_WRITES) -> None:
        self._store = store
        self._prefix = prefix
        self._interval = interval
        self._changed = threading.Condition()
        self._now = Progress()
        self._pending = True
        self._metrics: list[dict[str, Any]] = []
        self._metrics_pending = False
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

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(LAST_WRITE_SECONDS)

    def _write_changes(self) -> None:
        while not self._closed:
            started = time.monotonic()
            self._write_once()
            with self._changed:
                self._changed.wait_for(lambda: self._closed, self._interval - (time.monotonic() - started))
                self._changed.wait_for(lambda: self._closed or self._pending or self._metrics_pending)
        self._write_once()

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

    def _put(self, name: str, text: str) -> None:
        self._store.put_bytes(self._prefix + name, text.encode())


def _as_lines(metrics: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in metrics)
