"""A bound on the time that one answer's grammar may take of an engine, as a plug-in of it.

The engine follows all readings of an answer before each of its tokens, while every other request waits. In an
ambiguous grammar, such as `e ::= e "+" e | [0-9]`, they grow with the answer. One that has taken too long is
cut as one that has reached its most tokens: it ends with `length`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

MOST_SECONDS = 2.0
SECONDS_PER_TOKEN = 0.005
"""What each token adds to what is left. Grammars in use take a tenth of it."""


@dataclass
class Allowance:
    """Seconds of a core that an answer's grammar may still take."""

    left: float = MOST_SECONDS

    @contextmanager
    def spending(self, clock: Callable[[], float] = time.thread_time) -> Iterator[None]:
        began = clock()
        yield
        self.left -= clock() - began

    def add(self, tokens: int) -> None:
        self.left = min(MOST_SECONDS, self.left + tokens * SECONDS_PER_TOKEN)

    @property
    def is_spent(self) -> bool:
        return self.left < 0


def bound_grammars() -> None:
    """Put the bound into the engine, which calls this in each of its processes as it starts."""
    from vllm.v1.structured_output import StructuredOutputManager, backend_xgrammar

    if hasattr(backend_xgrammar.XgrammarGrammar, "is_cut"):
        return
    backend_xgrammar.XgrammarGrammar = bounded(backend_xgrammar.XgrammarGrammar)
    StructuredOutputManager.accept_tokens = accepting(StructuredOutputManager.accept_tokens)


def bounded(grammar: Any) -> Any:
    """The engine's class for the grammar of one answer, with an allowance."""

    class Bounded(grammar):
        is_cut = False
        """Whether the answer ends with its next token, which is thrown away."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.allowance = Allowance()

        def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
            with self.allowance.spending():
                return bool(super().accept_tokens(request_id, tokens))

        def rollback(self, num_tokens: int) -> None:
            with self.allowance.spending():
                super().rollback(num_tokens)

        def validate_tokens(self, tokens: list[int]) -> list[int]:
            with self.allowance.spending():
                return list(super().validate_tokens(tokens))

        def fill_bitmask(self, bitmask: Any, idx: int) -> None:
            if self.is_cut:
                bitmask[idx].fill_(-1)
                return
            with self.allowance.spending():
                super().fill_bitmask(bitmask, idx)

    return Bounded


def accepting(accept: Callable[..., Any]) -> Callable[..., bool]:
    """The engine's step for an answer's next tokens, which cuts those that have no allowance left.

    The engine looks for an answer's end before this step, so that one that is cut here gets one token more.
    """

    def accept_or_cut(engine: Any, request: Any, tokens: list[int]) -> bool:
        asked = request.structured_output_request
        if asked is not None and getattr(asked.grammar, "is_cut", False):
            _end(request, tokens)
            return True
        allowance = asked and getattr(asked.grammar, "allowance", None)
        if allowance:
            # Only here: a grammar is also asked about tokens that are guessed, and come to nothing.
            allowance.add(len(tokens))
        accepted = bool(accept(engine, request, tokens))
        if allowance and allowance.is_spent:
            asked.grammar.is_cut = True
            request.max_tokens = min(request.max_tokens, request.num_output_tokens + 1)
        return accepted

    return accept_or_cut


def _end(request: Any, tokens: list[int]) -> None:
    """Any token may have come last, also one that ends answers: none is given to the caller."""
    from vllm.v1.request import RequestStatus

    tokens.clear()
    request.status, request.stop_reason = RequestStatus.FINISHED_LENGTH_CAPPED, None
