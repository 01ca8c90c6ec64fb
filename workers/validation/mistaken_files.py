"""Files that were taken for JSON Lines and are something else: told by their first line."""

from __future__ import annotations

import re

# What a file of the kind begins with, and what its owner is told.
BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "the file is compressed with gzip; upload it unpacked"),
    (b"PK\x03\x04", "the file is a ZIP archive; upload the JSON Lines file that is in it"),
    (b"(\xb5/\xfd", "the file is compressed with zstd; upload it unpacked"),
    (b"BZh", "the file is compressed with bzip2; upload it unpacked"),
    (b"PAR1", "the file is Parquet; write its rows as JSON Lines, one object a line"),
    (b"ARROW1", "the file is Arrow; write its rows as JSON Lines, one object a line"),
    (b"\xff\xfe", "the file is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "the file is UTF-16; save it as UTF-8"),
    (b"{\x00", "the file is UTF-16; save it as UTF-8"),
    (b"\x00{", "the file is UTF-16; save it as UTF-8"),
    (b"<", "the file is HTML or XML, as a page that says why a download failed often is"),
    (b"version https://git-lfs", "the file is a pointer of Git LFS; fetch the file that it stands for"),
)
ARRAY = "the file is one JSON array; write each of its objects in a line of its own, without the brackets"
PRETTY = "the object goes on in the next line; each must stand in one line"
CSV = "the file is a table (CSV); write each row as a JSON object in a line of its own"
ARRAY_HEAD = re.compile(rb"\[\s*(\{|$)")
TABLE_HEAD = re.compile(rb"[\w\" .-]+([,;\t][\w\" .-]+)+\r?")


def recognise(first_line: bytes) -> str:
    """What the file most likely is, if its first line is no JSON object; empty where that is not plain."""
    for beginning, told in BEGINNINGS:
        if first_line.startswith(beginning):
            return told
    stripped = first_line.strip()
    if ARRAY_HEAD.match(stripped):
        return ARRAY
    if stripped == b"{":
        return PRETTY
    return CSV if TABLE_HEAD.fullmatch(stripped) else ""
