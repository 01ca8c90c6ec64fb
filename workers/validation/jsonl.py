"""Lines of a JSONL stream and the JSON object in each: strict, in bounded memory, and fast.

Rows are decoded by msgspec, which already refuses NaN, control characters, lone surrogates and invalid UTF-8.
What it lets pass (duplicate keys, very deep nesting) is checked here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from controlplane.checks.wording import shown

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_DEPTH = 64

_LONE_SURROGATE = re.compile(
    rb"(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_HABITS = (
    (re.compile(rb"\x00"), "there is a NUL at byte {place}"),
    (
        re.compile(rb"^\xef\xbb\xbf"),
        "there is a byte order mark in the middle of the file; it was joined of others",
    ),
    (re.compile(rb"\}\s*\r\s*\{"), "the lines end with CR only, at byte {place}; end them with a line feed"),
    (
        re.compile(rb"\}\s*\{"),
        "there are two objects in the line, at byte {place}; each needs a line of its own",
    ),
    (re.compile(rb"\},\s*$"), "there is a comma behind the object; lines of JSON are not parted by commas"),
    (
        re.compile(rb"^\s*\{\s*'|:\s*(?:None|True|False)\b"),
        "it is Python's notation, at byte {place}; write it with json.dumps",
    ),
)
"""Looked for only in lines that are no JSON."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class BadRow(Exception):
    """A row that cannot be used; the text is a sentence fragment for its owner."""


class UnreadableRow(BadRow):
    """A row that is no JSON. Finding out why costs far more than finding out that: done when asked."""

    def __init__(self, line: bytes, error: Exception) -> None:
        super().__init__()
        self._line = line
        self._error = error

    def __str__(self) -> str:
        return _why_not_json(self._line, self._error)


def split_lines(chunks: Iterable[bytes], limit: int) -> Iterator[bytes | None]:
    """The stream's lines without their newline; None stands for a line longer than `limit` bytes.

    Never more than `limit` bytes and one chunk are held. A leading byte order mark is dropped, and so is the
    empty line after a last newline.
    """
    held: list[bytes] = []
    held_bytes = 0
    for chunk in _without_mark(chunks):
        first, newline, rest = chunk.partition(b"\n")
        held_bytes += len(first)
        if held_bytes <= limit:
            held.append(first)
        if not newline:
            continue
        yield b"".join(held) if held_bytes <= limit else None
        *lines, last = rest.split(b"\n")
        for line in lines:
            yield line if len(line) <= limit else None
        held, held_bytes = [last], len(last)
    if held_bytes:
        yield b"".join(held) if held_bytes <= limit else None


def parse_row(line: bytes) -> dict[str, Any]:
    """The JSON object of one line; raises `BadRow`."""
    try:
        row = _decode(line)
        if type(row) is not dict:
            raise BadRow(f"expected a JSON object, found {shown(row)}")
        canonical = _encode(row)
    except RecursionError:
        raise BadRow(f"nested deeper than {MAX_DEPTH} levels") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise UnreadableRow(line, error) from None
    if canonical.count(b"{") + canonical.count(b"[") > MAX_DEPTH and _deeper_than(row, MAX_DEPTH):
        raise BadRow(f"nested deeper than {MAX_DEPTH} levels")
    # Decoding and encoding again changes no string, except that of two equal keys only one is left.
    if _string_count(line) != _string_count(canonical):
        raise BadRow(_name_duplicate(line))
    return row


def _without_mark(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, less the byte order mark, even where the mark is spread over several chunks."""
    start: bytes | None = b""
    for chunk in chunks:
        if start is None:
            yield chunk
            continue
        start += chunk
        if len(start) >= len(BYTE_ORDER_MARK):
            yield start.removeprefix(BYTE_ORDER_MARK)
            start = None
    if start:
        yield start


def _string_count(text: bytes) -> int:
    """Twice the number of strings in a JSON text: its quotes, without those that are escaped."""
    if b"\\" not in text:
        return text.count(b'"')
    return text.count(b'"') - text.replace(b"\\\\", b"").count(b'\\"')


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _why_not_json(line: bytes, error: Exception) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as bad:
        return f"not UTF-8: byte 0x{line[bad.start]:02x} at byte {bad.start + 1}"
    if not line.strip():
        return "there is nothing but white space"
    if lone := _LONE_SURROGATE.search(line):
        return f"half a surrogate pair ({lone.group().decode()}) at byte {lone.start() + 1}"
    if hint := _habit(line):
        return f"not JSON: {hint}"
    text = str(error)
    if "out of range" in text or isinstance(error, OverflowError):
        return "a number is too large to be read"
    for constant in (b"NaN", b"Infinity"):
        if constant in line and "malformed" in text:
            return f"not JSON: {constant.decode()} is no JSON number ({_position(text)})"
    return f"not JSON: {_position(text)}"


def _habit(line: bytes) -> str:
    """What people do that makes no JSON, where that is plain."""
    for pattern, told in _HABITS:
        if found := pattern.search(line):
            return told.format(place=found.start() + 1)
    return ""


def _position(text: str) -> str:
    """msgspec's complaint with bytes counted from one, as people and editors do."""
    text = text.removeprefix("JSON is malformed: ")
    text = text.replace("Input data was truncated", "the text ends too early")
    # Of characters that trail, msgspec gives the byte after the first.
    first = 0 if text.startswith("trailing characters") else 1
    return re.sub(r"\(byte (\d+)\)", lambda found: f"at byte {int(found.group(1)) + first}", text)


def _name_duplicate(line: bytes) -> str:
    repeated: list[str] = []

    def note_repeats(pairs: list[tuple[str, Any]]) -> None:
        if len(pairs) > 1:
            key, times = Counter(key for key, _ in pairs).most_common(1)[0]
            repeated.extend([key] if times > 1 else [])

    try:
        json.loads(line, object_pairs_hook=note_repeats)
    except RecursionError:
        return f"nested deeper than {MAX_DEPTH} levels"
    return f"the key {shown(repeated[0])} appears twice in one object"
