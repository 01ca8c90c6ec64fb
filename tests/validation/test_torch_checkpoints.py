"""`.bin` checkpoints: what torch writes is read, what a pickle could do is refused by name."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.checks.problems import InvalidFile
from controlplane.storage import ObjectInfo
from workers.validation.torch_archive import read_torch_archive
from workers.validation.torch_pickle import read_pickled_tensors


class OneFile:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def head(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.content), "")

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self.content[start : start + length]


def read(content: bytes) -> Any:
    return read_torch_archive(OneFile(content), "file", len(content))


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def archive(pickled: bytes, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for name, content in members.items():
            file.writestr(f"archive/data/{name}", content)
    return buffer.getvalue()


class Runs:
    """Unpickling this calls a function of the attacker's choice."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def test_what_torch_saves_is_read() -> None:
    state = OrderedDict(
        half=torch.ones(2, 3, dtype=torch.float16),
        brain=torch.ones(4, dtype=torch.bfloat16),
        parameter=torch.nn.Parameter(torch.ones(2, 2)),
        whole=torch.ones(3, dtype=torch.int64),
        part=torch.arange(6.0)[2:4],
    )
    content = saved(state)
    tensors = read(content)
    assert {name: (info.dtype, info.shape) for name, info in tensors.items()} == {
        "half": ("F16", (2, 3)),
        "brain": ("BF16", (4,)),
        "parameter": ("F32", (2, 2)),
        "whole": ("I64", (3,)),
        "part": ("F32", (2,)),
    }
    half = tensors["half"]
    assert content[half.begin : half.end] == b"\x00\x3c" * 6


def test_a_module_state_is_read() -> None:
    assert read(saved(torch.nn.Linear(2, 3).state_dict()))["weight"].shape == (3, 2)


HOSTILE = [
    (
        archive(pickle.dumps(Runs(eval, "1"), 2)),
        "the pickle refers to __builtin__.eval, which is not allowed",
    ),
    (archive(b"cos\nsystem\n(S'id'\ntR."), "the pickle refers to os.system, which is not allowed"),
    (archive(pickle.dumps(Runs(eval, "1"), 4)), "the pickle uses FRAME, which is not allowed"),
    (archive(b"\x80\x02ctorch\nload\n."), "the pickle refers to torch.load, which is not allowed"),
    (saved({"a": torch.ones(1), "b": Runs(print, "x")}), "the pickle refers to __builtin__.print"),
    (saved(torch.nn.Linear(1, 1)), "the pickle refers to torch.nn.modules.linear.Linear"),
    (
        saved({"a": torch.ones(2)}, _use_new_zipfile_serialization=False),
        "truncated, or no checkpoint that torch.save",
    ),
    (saved([torch.ones(1)]), "the checkpoint must hold a dictionary of tensors"),
    (saved({"a": 3}), '"a" is not a tensor; only a dictionary of tensors can be loaded'),
    (
        saved({3: torch.ones(1)}),
        "data.pkl is not what torch.save writes: a dictionary whose keys are not strings",
    ),
    (archive(b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns."), "a dictionary whose keys are not strings"),
    (archive(b"\x80\x02(" + b"0."), "the pickle uses POP, which is not allowed"),
    (archive(b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R."), "a call of collections OrderedDict"),
    (archive(b"\x80\x02X\x01\x00\x00\x00aQ."), "a reference that is no storage"),
    (archive(b"\x80\x02h\x05."), "data.pkl is not what torch.save writes"),
    (archive(b"\x80\x02\x8a\xff."), "data.pkl is not what torch.save writes"),
    (archive(b""), "data.pkl is not what torch.save writes"),
    (archive(b"\x80\x02}"), "data.pkl is not what torch.save writes"),
    (b"", "truncated, or no checkpoint"),
    (saved({"a": torch.ones(1000)})[:-300], "truncated, or no checkpoint"),
    (b"x" * 100, "truncated, or no checkpoint"),
]


@pytest.mark.parametrize(("content", "reason"), HOSTILE, ids=[reason for _, reason in HOSTILE])
def test_a_hostile_checkpoint_is_told_why(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(content)
    assert reason in caught.value.reason


def test_an_archive_whose_data_is_gone_is_told_by_tensor() -> None:
    with zipfile.ZipFile(io.BytesIO(saved({"weight": torch.ones(4)}))) as file:
        pickled = next(file.read(name) for name in file.namelist() if name.endswith("data.pkl"))
    for members, held in (({}, "nothing"), ({"0": b"xx"}, "2 bytes")):
        with pytest.raises(InvalidFile) as caught:
            read(archive(pickled, **members))
        assert caught.value.field == "weight"
        assert caught.value.reason == f"truncated: 16 bytes expected, the archive holds {held}"


def test_compressed_archives_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(InvalidFile, match="compressed or larger"):
        read(buffer.getvalue())


@given(
    st.lists(
        st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes])
        | st.binary(max_size=3)
    )
)
@settings(max_examples=500, deadline=None)
def test_no_program_makes_the_reader_fail(pieces: list[bytes]) -> None:
    try:
        read_pickled_tensors(b"\x80\x02" + b"".join(pieces) + b".")
    except InvalidFile as error:
        assert error.reason


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_damage_makes_the_reader_fail(data: st.DataObject) -> None:
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(content[: data.draw(st.integers(0, len(content)))]))
        read(bytes(content))
    except InvalidFile as error:
        assert error.reason


GOOD = saved({"a": torch.ones(2, 2), "b": torch.ones(1)})
