"""How fast a job goes and how long it still takes: arithmetic on the moments that it is told of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVALUATING, ASKING = "evaluating", "asking"
"""What evaluations are made of: the loss of held-out rows, and the answers to them."""


class Pace:
    """A stopwatch of training steps: what comes between two of them counts unless it is `aside`.

    Moments are of `clock`, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_rest = 0.0
        self._since: float | None = None
        self._took = {EVALUATING: 0.0, ASKING: 0.0}
        """How long each took the last time; 0 as long as nobody knows."""

    @property
    def seconds(self) -> float:
        """Spent in training so far."""
        return self._until_rest + (self._clock() - self._since if self._since is not None else 0.0)

    def go_on(self) -> None:
        """A step begins, and time counts."""
        if self._since is None:
            self._since = self._clock()

    def rest(self) -> None:
        """Until the next step begins time counts no more."""
        self._until_rest, self._since = self.seconds, None

    @contextmanager
    def aside(self, work: str) -> Iterator[None]:
        """Rest for this work, and remember how long it takes."""
        self.rest()
        started = self._clock()
        yield
        self._took[work] = self._clock() - started

    def seconds_left(self, steps_made: int, steps_left: int, evaluations_left: int) -> float:
        """For the steps and the evaluations to come. Answers are asked for once more, at the end.

        What was not seen yet in this attempt is left out.
        """
        of_steps = steps_left * self.seconds / max(1, steps_made)
        return of_steps + evaluations_left * self._took[EVALUATING] + self._took[ASKING]


def evaluations_left(step: int, max_steps: int, every: int) -> int:
    """From the moment that `step` was made, with the one that may follow at once, and the last of all."""
    return (max_steps - 1) // every - (step - 1) // every + 1
