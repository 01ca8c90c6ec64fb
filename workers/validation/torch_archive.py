"""Reads what a `.bin` checkpoint of torch holds: a zip archive of a pickle and the tensors' bytes."""

from __future__ import annotations

import io
import struct
import zipfile
from math import prod

from controlplane.checks.problems import FileSource, InvalidFile
from controlplane.checks.wording import shown
from workers.validation.safetensors_header import DTYPE_BITS, TensorInfo
from workers.validation.torch_pickle import PickledTensor, read_pickled_tensors

MAX_PICKLE_BYTES = 8 * 1024 * 1024
MAX_DIRECTORY_BYTES = 32 * 1024 * 1024
LOCAL_HEADER_BYTES = 30
ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    EOFError,
    struct.error,
)


def read_torch_archive(source: FileSource, key: str, size: int) -> dict[str, TensorInfo]:
    """The tensors of a `.bin` file; raises `InvalidFile`, naming the first global that is not allowed."""
    file = RangedFile(source, key, size)
    try:
        archive = zipfile.ZipFile(file)
    except ZIP_ERRORS as error:
        raise InvalidFile(
            f"truncated, or no checkpoint that torch.save writes since version 1.6 ({error})"
        ) from None
    tensors = read_pickled_tensors(_read_pickle(archive))
    storages = _storages(archive, size)
    return {name: _locate(name, tensor, storages, file) for name, tensor in tensors.items()}


class RangedFile(io.RawIOBase):
    """A seekable file over ranged reads, for `zipfile`; it refuses to read much at once."""

    def __init__(self, source: FileSource, key: str, size: int) -> None:
        super().__init__()
        self._source, self._key, self._size = source, key, size
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("a position before the start of the file")
        self._position = start + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._size - self._position)
        wanted = rest if size < 0 else min(size, rest)
        if wanted > MAX_DIRECTORY_BYTES:
            raise InvalidFile(f"the archive's directory is larger than {MAX_DIRECTORY_BYTES} bytes")
        data = self._source.read_range(self._key, self._position, wanted)
        self._position += len(data)
        return data


def _read_pickle(archive: zipfile.ZipFile) -> bytes:
    found = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == "data.pkl"]
    if len(found) != 1:
        raise InvalidFile("the archive must hold one data.pkl")
    if found[0].file_size > MAX_PICKLE_BYTES or found[0].compress_type != zipfile.ZIP_STORED:
        raise InvalidFile(f"data.pkl is compressed or larger than {MAX_PICKLE_BYTES} bytes")
    try:
        with archive.open(found[0]) as member:
            return member.read()
    except ZIP_ERRORS as error:
        raise InvalidFile(f"data.pkl cannot be read: {error}") from None


def _storages(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The archive's members under `data/`, by the name that the pickle calls them."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        folder, _, name = info.filename.rpartition("/")
        if folder.rpartition("/")[2] != "data":
            continue
        if info.compress_type != zipfile.ZIP_STORED or info.header_offset + info.file_size > size:
            raise InvalidFile(f"{shown(info.filename)} is compressed or truncated")
        found[name] = info
    return found


def _locate(
    name: str, tensor: PickledTensor, storages: dict[str, zipfile.ZipInfo], file: RangedFile
) -> TensorInfo:
    storage = tensor.storage
    info = storages.get(storage.key)
    wanted = storage.elements * DTYPE_BITS[storage.dtype] // 8
    if info is None or info.file_size != wanted or prod(tensor.shape) > storage.elements:
        held = "nothing" if info is None else f"{info.file_size} bytes"
        raise InvalidFile(f"truncated: {wanted} bytes expected, the archive holds {held}", name)
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER_BYTES)
    if len(header) != LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
        raise InvalidFile("truncated: its part of the archive cannot be found", name)
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    begin = info.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    return TensorInfo(storage.dtype, tensor.shape, begin, begin + wanted)
