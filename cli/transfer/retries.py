"""Trying again: after lost connections and busy servers, with pauses, and not for ever."""

import random
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from cli.connection.client import is_outage
from cli.errors import CliError, Stopped

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

BACKOFF_SECONDS = 0.5  # before the second attempt; it doubles
LONGEST_PAUSE_SECONDS = 15.0
LOST_BEFORE_RENEWAL = 3  # connections, one after the other
ATTEMPTS = 8  # at the least, before anything is given up
PATIENCE_SECONDS = 300.0  # since anything got through
RENEWED_SECONDS = 60.0  # a URL that is refused sooner than this was not too old
MOST_DAMAGED = 3  # attempts at a piece that arrives as another one
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_ELSEWHERE = frozenset({403, 404})  # a URL that is too old, or an upload that is over


class Patience:
    """How long nothing has got through, over all that is transferred at the same time."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._moved_at = time.monotonic()

    def moved(self) -> None:
        self._moved_at = time.monotonic()

    def has_moved_since(self, moment: float) -> bool:
        return self._moved_at > moment

    def is_over(self, attempts: int) -> bool:
        return attempts >= ATTEMPTS and time.monotonic() - self._moved_at > PATIENCE_SECONDS

    def pause(self, attempt: int) -> None:
        """Waits before another attempt; the first one was number 1."""
        longest = min(LONGEST_PAUSE_SECONDS, BACKOFF_SECONDS * 2 ** min(attempt - 1, 10))
        if self._stop.wait(longest * random.uniform(0.5, 1.0)):
            raise Stopped("the transfer was stopped")


class Address:
    """Where a piece of a transfer is found, and how to have that address renewed."""

    def __init__(self, url: str, renew: Callable[[str], str]) -> None:
        self.url = url
        self._renew = renew
        self._renewed_at = float("-inf")

    @property
    def may_be_old(self) -> bool:
        return time.monotonic() - self._renewed_at > RENEWED_SECONDS

    def renew(self) -> None:
        self.url, self._renewed_at = self._renew(self.url), time.monotonic()


def with_retries(
    what: str, address: Address, attempt: Callable[[str], "httpx.Response"], patience: Patience
) -> None:
    """Tries until it works: again after lost connections and 5xx, with a new URL after 403."""
    import httpx

    number = damaged = 0
    while True:
        number, began = number + 1, time.monotonic()
        try:
            response = attempt(address.url)
        except httpx.TransportError as error:
            reason = f"{urlsplit(address.url).netloc}: {error or type(error).__name__}"
            # A store that refuses a URL may hang up before its answer can be read.
            if number >= LOST_BEFORE_RENEWAL and address.may_be_old:
                address.renew()
        else:
            if response.status_code < 300:
                patience.moved()
                return
            reason = f"{urlsplit(address.url).netloc} answered {response.status_code}{told(response)}"
            damaged += "BadDigest" in response.text[:4000]
            _refuse_what_stays(response, address, damaged, f"the {what} failed: {reason}")
        number = 1 if patience.has_moved_since(began) else number
        if patience.is_over(number):
            raise Stopped(f"the {what} was given up, nothing got through any more: {reason}")
        patience.pause(number)


def _refuse_what_stays(response: "httpx.Response", address: Address, damaged: int, message: str) -> None:
    """Raises for an answer that another attempt would get too."""
    if response.status_code in _ELSEWHERE and address.may_be_old:
        address.renew()
    elif response.status_code == 404:  # somebody else ended this upload; it is theirs to take back
        raise Stopped(message)
    elif response.status_code not in _AGAIN and not 0 < damaged < MOST_DAMAGED:
        raise CliError(message)


def patiently(ask: Callable[[], T], patience: Patience) -> T:
    """Asks the API, again and again while it is away."""
    number = 0
    while True:
        number += 1
        try:
            return ask()
        except CliError as error:
            if not is_outage(error):
                raise
            if patience.is_over(number):
                raise Stopped(error.message, details=error.details, advice=error.advice) from None
        patience.pause(number)


def told(response: "httpx.Response") -> str:
    """The <Message> of a storage's XML error."""
    found = re.search(r"<Message>([^<]{1,300})</Message>", response.text[:4000])
    return f": {found[1]}" if found else ""
