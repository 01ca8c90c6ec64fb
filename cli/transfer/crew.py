"""A few threads that work at the same time."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")

PARALLEL = 4
_LOOK_SECONDS = 0.1
_LEAVE_SECONDS = 2.0  # what does not end by then ends with the program


class Crew(Generic[T]):
    """Does the work for what it is given, PARALLEL at a time; the first failure stops all and is raised."""

    def __init__(self, work: Callable[[T], None], stop: threading.Event) -> None:
        self._work = work
        self._stop = stop
        self._waiting: queue.Queue[T | None] = queue.Queue(maxsize=PARALLEL)
        self._failure: BaseException | None = None
        # Daemons: a connection that hangs must not keep the program from ending.
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(PARALLEL)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            return
        self._stop.set()
        for thread in self._threads:
            thread.join(_LEAVE_SECONDS / PARALLEL)

    def give(self, item: T | None) -> None:
        """Waits until somebody has room for it."""
        while True:
            self._raise_failure()
            try:
                self._waiting.put(item, timeout=_LOOK_SECONDS)
                return
            except queue.Full:
                continue

    def finish(self) -> None:
        """Waits until everything is done."""
        for _ in self._threads:
            self.give(None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_LOOK_SECONDS)
                self._raise_failure()
        self._raise_failure()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                item = self._waiting.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            if item is None:
                return
            try:
                self._work(item)
            except BaseException as error:  # noqa: BLE001 it is raised where the crew was asked
                self._failure = self._failure or error
                self._stop.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
