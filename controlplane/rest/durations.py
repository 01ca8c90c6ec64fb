"""protobuf JSON durations: `"600s"`, `"1.5s"`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

PATTERN = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")


def parse_duration(value: Any) -> timedelta:
    """Read a protobuf JSON duration; ValueError says what is expected."""
    if isinstance(value, timedelta):
        return value
    found = PATTERN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('must be a duration in seconds such as "600s"')
    sign, seconds, fraction = found.groups()
    length = timedelta(seconds=int(seconds), microseconds=int((fraction or "0").ljust(9, "0")[:6]))
    return -length if sign else length


def format_duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{seconds:.6f}".rstrip("0") + "s"
