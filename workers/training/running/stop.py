"""Being asked to stop: at once where nothing is lost, after a checkpoint while training."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from workers.training.errors import Interrupted


class StopRequest:
    """Notes SIGTERM. Outside of `deferred` it raises Interrupted on the spot."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, the work looks at `requested` itself; at the end the request is carried out."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.carry_out()

    def carry_out(self) -> None:
        if self.requested:
            raise Interrupted

    def _on_signal(self, *_: object) -> None:
        self.requested = True
        if not self._deferred:
            raise Interrupted
