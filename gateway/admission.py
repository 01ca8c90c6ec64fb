"""How many requests the gateway holds at one time, in all and for each account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import GatewayError, unavailable


class Admission:
    def __init__(self, total: int, per_account: int) -> None:
        self.held: Counter[str] = Counter()
        self._count = 0
        self._total = total
        self._per_account = per_account

    @contextmanager
    def enter(self, account_id: str) -> Iterator[None]:
        """A place for the length of the block; 429 or 503 at once when there is none."""
        if self.held[account_id] >= self._per_account:
            raise GatewayError(
                429,
                "RESOURCE_EXHAUSTED",
                f"the account has {self._per_account} requests in flight, which is the limit",
                headers={"Retry-After": "1"},
            )
        if self._count >= self._total:
            raise unavailable("OVERLOADED", "the gateway is at its limit of requests in flight")
        self._count += 1
        self.held[account_id] += 1
        try:
            yield
        finally:
            self._count -= 1
            self.held[account_id] -= 1
            if not self.held[account_id]:
                del self.held[account_id]
