"""JSON files of a model: bounded in size, strict, and always an object at the top."""

from __future__ import annotations

from typing import Any

from controlplane.checks.problems import FileSource, InvalidFile
from workers.validation.jsonl import BYTE_ORDER_MARK, BadRow, parse_row

CONFIG_BYTES = 4 * 1024 * 1024
VOCABULARY_BYTES = 64 * 1024 * 1024


def read_small_file(source: FileSource, key: str, limit: int) -> bytes:
    """A whole file of at most `limit` bytes; raises `InvalidFile` for a larger one."""
    data = source.read_range(key, 0, limit + 1)
    if len(data) > limit:
        raise InvalidFile(f"larger than {limit} bytes")
    return data


def read_json_object(source: FileSource, key: str, limit: int = CONFIG_BYTES) -> dict[str, Any]:
    data = read_small_file(source, key, limit)
    if not data.strip():
        raise InvalidFile("the file is empty")
    try:
        return parse_row(data.removeprefix(BYTE_ORDER_MARK))
    except BadRow as error:
        raise InvalidFile(str(error)) from None
