"""Values in words: times, sizes, spans and counts, exact for programs and readable for people."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cli.errors import printable

_DURATION = re.compile(r"(\d+)(?:\.\d+)?s")
_SIZE = re.compile(r"(Bytes|^filenameToSize)$")
_COUNTED = re.compile(r"(Count|Tokens|Seen|Examples|Steps|Rows)$", re.IGNORECASE)
_ACRONYMS = {"id": "ID", "url": "URL", "uri": "URI", "api": "API", "wandb": "W&B"}
# Where scripts look for another word than the field's.
_LABELS = {"supportedPrecisions": "Precisions"}
# What is over, well or badly. Every other state is on its way.
_GOOD = frozenset(
    {"READY", "DEPLOYED", "COMPLETED", "EARLY_STOPPED", "ACTIVE", "OK", "SUCCEEDED", "VALIDATED"}
)
_BAD = frozenset(
    {"FAILED", "CANCELLED", "EXPIRED", "DELETED", "SUSPENDED", "EVICTED", "PAUSED", "INVALID", "DISABLED"}
)


@dataclass(frozen=True)
class Look:
    """How values are written. The plain look is exact and stable: scripts read it."""

    readable: bool = False
    colour: bool = False
    now: datetime | None = None
    """Set where relative times help."""


PLAIN = Look()


def scalar(key: str, value: Any, look: Look = PLAIN) -> str:
    """One value of a field, in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and key.endswith(("Time", "timestamp")):
        return printable(time_text(value, look))
    if isinstance(value, float):
        return f"{value:.12g}"
    text = printable(str(value))
    return _readable(key, text) if look.readable else text


def _readable(key: str, text: str) -> str:
    if text.isdigit() and len(text) < 20:
        if _SIZE.search(key):
            return byte_size(int(text))
        if _COUNTED.search(key):
            return f"{int(text):,}"
    duration = _DURATION.fullmatch(text)
    return span(float(text[:-1])) if duration and int(duration[1]) >= 60 else text


def state_colour(state: str) -> str:
    """green, yellow or red; nothing for what is no state."""
    word = state.removeprefix("JOB_STATE_").partition(" ")[0]
    if word in _GOOD and "(" not in state:
        return "green"
    if word in _BAD or "(" in state:
        return "red"
    return "yellow" if word else ""


def status_text(status: Mapping[str, Any]) -> str:
    """`CODE`, or `CODE: message`."""
    code, message = str(status.get("code") or "OK"), str(status.get("message") or "")
    return printable(f"{code}: {message}" if message else code)


def label(key: str) -> str:
    """`createTime` becomes `Create Time`."""
    if key in _LABELS:
        return _LABELS[key]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower().split("_")
    return " ".join(_ACRONYMS.get(word, word[:1].upper() + word[1:]) for word in words)


def time_text(stamp: str, look: Look) -> str:
    """The local time; for people also how long ago, or ahead, that is."""
    told = local_time(stamp)
    relative = relative_time(stamp, look.now) if look.now else ""
    return f"{told} ({relative})" if relative else told


def local_time(stamp: str) -> str:
    """An RFC 3339 time in local time; text that is none stays as it is."""
    moment = _moment(stamp)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else stamp


def relative_time(stamp: str, now: datetime) -> str:
    """`3m ago`, or `in 2h`; empty for text that is no time."""
    moment = _moment(stamp)
    if moment is None:
        return ""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    gone = (now - moment).total_seconds()
    return f"{_coarse(gone)} ago" if gone >= 0 else f"in {_coarse(-gone)}"


def _moment(stamp: str) -> datetime | None:
    try:
        return datetime.fromisoformat(stamp) if stamp else None
    except ValueError:
        return None


def _coarse(seconds: float) -> str:
    for unit, length in (("y", 31_556_952), ("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def byte_size(count: float) -> str:
    """`1536` becomes `1.5 KB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def span(total_seconds: float) -> str:
    """`75` becomes `1m15s`."""
    whole = int(total_seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
