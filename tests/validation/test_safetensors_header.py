"""Headers of safetensors files: what is said is checked against what is there."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.checks.problems import InvalidFile
from controlplane.storage import ObjectInfo
from workers.validation.safetensors_header import TensorInfo, read_safetensors_header


class OneFile:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def head(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.content), "")

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self.content[start : start + length]


def read(content: bytes, size: int | None = None) -> dict[str, TensorInfo]:
    return read_safetensors_header(OneFile(content), "file", len(content) if size is None else size)


def file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, shape: Any = (2,), dtype: Any = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_tensors_are_told_with_their_place_in_the_file() -> None:
    content = file(
        {"b": entry(4, 12, [2, 1], "F32"), "a": entry(0, 4), "__metadata__": {"format": "pt"}}, bytes(12)
    )
    begin = len(content) - 12
    assert read(content) == {
        "a": TensorInfo("F16", (2,), begin, begin + 4),
        "b": TensorInfo("F32", (2, 1), begin + 4, begin + 12),
    }


def test_scalars_empty_tensors_and_padding_are_fine() -> None:
    padded = json.dumps({"s": entry(0, 2, []), "e": entry(2, 2, [0, 5])}).encode() + b"   "
    assert {name: info.elements for name, info in read(file(padded, b"xx")).items()} == {"s": 1, "e": 0}


WRONG = [
    (b"", "truncated: 0 bytes hold no safetensors header"),
    (b"\x01\x00", "truncated: 2 bytes"),
    (
        struct.pack("<Q", 1000) + b"{}",
        "truncated, or no safetensors file: the header's length is 1000 bytes, the file has 10",
    ),
    (struct.pack("<Q", 2**63) + b"{}", "truncated, or no safetensors file: the header's length is"),
    (file(b"[]"), "not a safetensors file: no JSON object after the length"),
    (b"PK\x03\x04" + bytes(30), "truncated, or no safetensors file"),
    (file(b"{nope}"), "not a safetensors file: the header is not JSON"),
    (
        file(b'{"a": {"dtype": "F16", "shape": [2], "shape": [1], "data_offsets": [0, 4]}}', bytes(4)),
        "appears twice",
    ),
    (file(b'{"a": "' + b"\xff" + b'"}'), "not UTF-8"),
    (file({"__metadata__": {"a": 1}}), "__metadata__ must be an object of strings"),
    (file({"a": 3}), "the header's entry must hold dtype, shape and data_offsets"),
    (file({"a": {**entry(0, 4), "x": 1}}, bytes(4)), "the header's entry must hold"),
    (file({"a": entry(0, 4, dtype="F17")}, bytes(4)), 'dtype "F17" is unknown'),
    (file({"a": entry(0, 4, dtype=["F16"])}, bytes(4)), "dtype an array is unknown"),
    (file({"a": entry(0, 4, shape=[-2])}, bytes(4)), "shape must be at most 16 sizes"),
    (file({"a": entry(0, 4, shape=[2.0])}, bytes(4)), "shape must be"),
    (file({"a": entry(0, 4, shape=[True, 2])}, bytes(4)), "shape must be"),
    (file({"a": entry(0, 4, shape=[1] * 17)}, bytes(4)), "shape must be"),
    (file({"a": entry(0, 4, shape=[2**62] * 16)}, bytes(4)), "bytes of data do not fit"),
    (file({"a": entry(0, 5)}, bytes(5)), "5 bytes of data do not fit dtype F16 and shape [2]"),
    (file({"a": entry(4, 0)}, bytes(4)), "-4 bytes of data do not fit"),
    (file({"a": {**entry(0, 4), "data_offsets": [0]}}, bytes(4)), "data_offsets must be two positions"),
    (
        file({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)),
        "its bytes overlap another tensor's, or leave a gap",
    ),
    (
        file({"a": entry(0, 4), "b": entry(6, 10)}, bytes(10)),
        "its bytes overlap another tensor's, or leave a gap",
    ),
    (file({"a": entry(2, 6)}, bytes(6)), "leave a gap before them"),
    (file({"a": entry(0, 4)}, bytes(3)), "truncated: the header describes"),
    (file({"a": entry(0, 4)}, bytes(9)), "5 bytes follow the last tensor"),
]


@pytest.mark.parametrize(("content", "reason"), WRONG, ids=[reason for _, reason in WRONG])
def test_a_wrong_file_is_told_why(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(content)
    assert reason in caught.value.reason


def test_the_tensor_that_was_cut_is_named() -> None:
    content = file({"whole": entry(0, 4), "cut": entry(4, 8)}, bytes(6))
    with pytest.raises(InvalidFile) as caught:
        read(content)
    assert caught.value.field == "cut"


def test_a_header_larger_than_the_limit_is_not_read() -> None:
    with pytest.raises(InvalidFile, match="at most 16777216 are read"):
        read(struct.pack("<Q", 2**30) + b"{", size=2**40)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_the_reader_fail(content: bytes) -> None:
    for candidate in (content, file(content), file(b"{" + content + b"}", content)):
        try:
            read(candidate)
        except InvalidFile as error:
            assert error.reason


_value = (
    st.none()
    | st.booleans()
    | st.integers(-4, 2**70)
    | st.text(max_size=3)
    | st.lists(st.integers(-1, 9), max_size=3)
)
_entry = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F16", "BOOL", "F4"]) | _value, "shape": _value, "data_offsets": _value}
)


@given(st.dictionaries(st.text(max_size=3), _entry | _value, max_size=4), st.binary(max_size=20))
@settings(max_examples=300, deadline=None)
def test_no_header_makes_the_reader_fail(header: dict[str, Any], data: bytes) -> None:
    try:
        tensors = read(file(header, data))
    except InvalidFile as error:
        assert error.reason
    else:
        assert sum(info.end - info.begin for info in tensors.values()) == len(data)
