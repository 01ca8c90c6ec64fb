"""What goes to standard error: lines for people, or with HEARTH_LOG_FORMAT=json one JSON object a line.

What is known of the work that is going on (the request's id, the account, the task …) stands in `FACTS` and
is written with every line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

FACTS: ContextVar[Mapping[str, str]] = ContextVar("facts", default=MappingProxyType({}))

Format = Literal["text", "json"]
OF_SERVERS = ("uvicorn", "uvicorn.error")
"""But for `uvicorn.access`, which stays silent: requests have lines of their own."""
SECRETS = (
    (re.compile(r"\bfw_[A-Za-z0-9_-]{6,}"), "fw_***"),
    (re.compile(r"(\w://[^\s:/@]*:)[^\s@/]+@"), r"\1***@"),
    (re.compile(r"(?i)\b(bearer|basic) [A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
)
"""Keys, passwords in addresses, credentials of headers: nobody means to log them; libraries' errors do."""


@contextmanager
def facts(**known: str) -> Iterator[None]:
    """Add to what is known, for the length of the block."""
    token = FACTS.set({**FACTS.get(), **known})
    try:
        yield
    finally:
        FACTS.reset(token)


def set_up_logs(kind: Format, level: int = logging.INFO) -> None:
    """Everything that this program and its libraries log goes through one handler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if kind == "json" else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in OF_SERVERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def without_secrets(text: str) -> str:
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return text


class TextLines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        known = "".join(f" {name}={value}" for name, value in FACTS.get().items())
        return super().formatMessage(record) + known

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        content = {
            "time": utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **FACTS.get(),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(content, ensure_ascii=False))


def utc(moment: float) -> str:
    """RFC 3339, with milliseconds."""
    return f"{_utc_second(int(moment))}.{int(moment * 1000) % 1000:03d}Z"


def clock(moment: float) -> str:
    """As lines for people have it: local time, with milliseconds."""
    return f"{_local_second(int(moment))},{int(moment * 1000) % 1000:03d}"


@lru_cache(maxsize=4)
def _utc_second(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


@lru_cache(maxsize=4)
def _local_second(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
