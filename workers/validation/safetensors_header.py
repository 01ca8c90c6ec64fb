"""Reads what a safetensors file says it holds, without reading what it holds.

Layout: eight bytes with the header's length (little endian), the header (a JSON object of tensor name →
dtype, shape, data_offsets), then the tensors' bytes without a gap. A file that is not exactly as long as its
header says is refused: it was cut off, or something was appended.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import Any

from controlplane.checks.problems import FileSource, InvalidFile
from controlplane.checks.wording import shown
from workers.validation.jsonl import BadRow, parse_row

MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_DIMENSIONS = 16

DTYPE_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Where the tensor's bytes begin and end in the file."""
    end: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


def read_safetensors_header(source: FileSource, key: str, size: int) -> dict[str, TensorInfo]:
    """The tensors of a file of `size` bytes, in the order of their bytes; raises `InvalidFile`."""
    if size < 10:
        raise InvalidFile(f"truncated: {size} bytes hold no safetensors header")
    header_bytes = _header_length(source.read_range(key, 0, 8), size)
    raw = source.read_range(key, 8, header_bytes)
    if len(raw) != header_bytes or not raw.startswith(b"{"):
        raise InvalidFile("not a safetensors file: no JSON object after the length")
    try:
        header = parse_row(raw)
    except BadRow as error:
        raise InvalidFile(f"not a safetensors file: the header is {error}") from None
    _check_metadata(header.pop("__metadata__", {}))
    data_begin = 8 + header_bytes
    tensors = [(name, _tensor_info(name, entry, data_begin)) for name, entry in header.items()]
    tensors.sort(key=lambda named: (named[1].begin, named[1].end))
    _check_contiguous(tensors, data_begin, size)
    return dict(tensors)


def _header_length(prefix: bytes, size: int) -> int:
    if len(prefix) != 8:
        raise InvalidFile("truncated: the file ends within its first 8 bytes")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_HEADER_BYTES and size > MAX_HEADER_BYTES:
        raise InvalidFile(f"the header's length is {length} bytes; at most {MAX_HEADER_BYTES} are read")
    if length > size - 8:
        raise InvalidFile(
            f"truncated, or no safetensors file: the header's length is {length} bytes, the file has {size}"
        )
    return int(length)


def _check_metadata(metadata: Any) -> None:
    if type(metadata) is not dict or any(type(value) is not str for value in metadata.values()):
        raise InvalidFile("__metadata__ must be an object of strings")


def _tensor_info(name: str, entry: Any, data_begin: int) -> TensorInfo:
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidFile("the header's entry must hold dtype, shape and data_offsets", name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in DTYPE_BITS:
        raise InvalidFile(f"dtype {shown(dtype)} is unknown", name)
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise InvalidFile(f"shape must be at most {MAX_DIMENSIONS} sizes", name)
    if not _sizes(offsets) or len(offsets) != 2:
        raise InvalidFile("data_offsets must be two positions", name)
    begin, end = offsets
    bits = prod(shape) * DTYPE_BITS[dtype]
    if bits % 8 or end - begin != bits // 8:
        raise InvalidFile(f"{end - begin} bytes of data do not fit dtype {dtype} and shape {shape}", name)
    return TensorInfo(dtype, tuple(shape), data_begin + begin, data_begin + end)


def _sizes(value: Any) -> bool:
    return type(value) is list and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_contiguous(tensors: list[tuple[str, TensorInfo]], data_begin: int, size: int) -> None:
    position = data_begin
    for name, tensor in tensors:
        if tensor.begin != position:
            raise InvalidFile("its bytes overlap another tensor's, or leave a gap before them", name)
        position = tensor.end
    if position > size:
        cut = next(name for name, tensor in tensors if tensor.end > size)
        raise InvalidFile(f"truncated: the header describes {position} bytes, the file has {size}", cut)
    if position < size:
        raise InvalidFile(f"{size - position} bytes follow the last tensor")
