"""Every request has an id, which its answer, its log lines and those whom it asks are told."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Iterable
from urllib.parse import quote

from starlette.types import Message, Send

REQUEST_ID = b"x-request-id"
TRACE_HEADER = b"traceparent"
PLAIN_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./:-]{1,200}")
QUIET = ("/healthz", "/readyz", "/metrics")
"""Paths that are asked for every few seconds, and not worth a line each."""
# For ids that are unique and no secrets: asking the system for each would cost more than the rest here.
RANDOM = random.Random()

Headers = Iterable[tuple[bytes, bytes]]


def new_id() -> str:
    return f"{RANDOM.getrandbits(128):032x}"


def given_ids(headers: Headers) -> tuple[str, str]:
    """The request's id and its `traceparent`, as the caller gives them; empty where it gives none."""
    request_id = traceparent = ""
    for name, value in headers:
        if name == REQUEST_ID and PLAIN_ID.fullmatch(value):
            request_id = value.decode()
        elif name == TRACE_HEADER:
            traceparent = value.decode("latin-1")
    return request_id, traceparent


class Noted:
    """A `send` that tells the caller the request's id, and remembers the answer's status."""

    __slots__ = ("_request_id", "_send", "has_begun", "status")

    def __init__(self, send: Send, request_id: str, status: int) -> None:
        """`status` is what stands when no answer begins."""
        self.status = status
        self.has_begun = False
        self._send = send
        self._request_id = request_id

    def __call__(self, message: Message) -> Awaitable[None]:
        if not self.has_begun:
            self.has_begun = True
            self.status = message["status"]
            self._tell_id(message)
        return self._send(message)

    def _tell_id(self, message: Message) -> None:
        for name, _ in message["headers"]:
            if name == REQUEST_ID:
                return
        message["headers"] = [*message["headers"], (REQUEST_ID, self._request_id.encode())]


def shown_path(path: str) -> str:
    """A path that can make no line of its own, nor a long one."""
    return path if PLAIN_PATH.fullmatch(path) else quote(path, safe="/:")[:200]
