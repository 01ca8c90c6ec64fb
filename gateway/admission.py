"""How many requests the gateway holds at one time, in all and for each account, and how large they are."""

from __future__ import annotations

from gateway.errors import GatewayError, key_used_up, unavailable
from gateway.key_limits import CONCURRENT


class Admission:
    def __init__(self, total: int, per_account: int, most_bytes: int) -> None:
        # Not counters: those call a method for each account that has none yet, and for each that goes.
        self.held: dict[str, int] = {}
        self.bytes = 0
        """Of the bodies of all requests that are held."""
        self.account_bytes: dict[str, int] = {}
        self.held_of_keys: dict[str, int] = {}
        """Of those that have a limit of their own."""
        self._most_bytes = most_bytes
        self._count = 0
        self._total = total
        self._per_account = per_account

    def enter(self, account_id: str, key_id: str = "", most_of_key: int | None = None) -> Place:
        """A place for the length of a `with` block; 429 or 503 at once when there is none.

        Of a key that has a limit, the limit as well.
        """
        held = self.held.get(account_id, 0)
        if held >= self._per_account:
            raise GatewayError(
                429,
                "RESOURCE_EXHAUSTED",
                f"the account has {self._per_account} requests in flight, which is the limit",
                headers={"Retry-After": "1"},
            )
        if self._count >= self._total:
            raise unavailable("OVERLOADED", "the gateway is at its limit of requests in flight")
        counted_key = "" if most_of_key is None else key_id
        if most_of_key is not None and self.held_of_keys.get(key_id, 0) >= most_of_key:
            text = "requests at one time, and has as many in flight"
            raise key_used_up(key_id, CONCURRENT, most_of_key, text, 1)
        self._count += 1
        self.held[account_id] = held + 1
        if counted_key:
            self.held_of_keys[counted_key] = self.held_of_keys.get(counted_key, 0) + 1
        return Place(self, account_id, counted_key)

    def hold(self, account_id: str, size: int) -> None:
        """Of what there is room for, one account gets half."""
        held = self.account_bytes.get(account_id, 0) + size
        if held > self._most_bytes // 2:
            raise GatewayError(
                429,
                "RESOURCE_EXHAUSTED",
                "the account's requests in flight are too large together",
                headers={"Retry-After": "1"},
            )
        if self.bytes + size > self._most_bytes:
            raise unavailable("OVERLOADED", "the gateway is at its limit of bytes in requests")
        self.bytes += size
        self.account_bytes[account_id] = held

    def leave(self, account_id: str, size: int, key_id: str = "") -> None:
        self._count -= 1
        self.bytes -= size
        left = self.held.pop(account_id) - 1
        held = self.account_bytes.pop(account_id, 0) - size
        if left:
            self.held[account_id] = left
            self.account_bytes[account_id] = held
        if key_id:
            left = self.held_of_keys.pop(key_id) - 1
            if left:
                self.held_of_keys[key_id] = left


class Place:
    """A request's place; what is held of its body is let go of with it."""

    __slots__ = ("_account_id", "_admission", "_bytes", "_key_id")

    def __init__(self, admission: Admission, account_id: str, key_id: str = "") -> None:
        self._key_id = key_id
        self._admission = admission
        self._account_id = account_id
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self._bytes

    def hold(self, size: int) -> None:
        """Count so many bytes more; 429 or 503 when there is no room for them."""
        self._admission.hold(self._account_id, size)
        self._bytes += size

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.leave(self._account_id, self._bytes, self._key_id)
