"""The pieces that files are sent in, and their checksums, taken while a file is read from front to back."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cli.errors import Stopped
from cli.transfer.local_files import LocalFile

CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Piece:
    """What one PUT sends: a part of a file, or a whole file, which has the number 0."""

    file: LocalFile
    number: int
    offset: int
    size: int
    md5: str

    def __str__(self) -> str:
        return f"part {self.number} of {self.file.name}" if self.number else self.file.name

    @property
    def headers(self) -> dict[str, str]:
        whole = {} if self.number else {"x-goog-content-length-range": f"{self.size},{self.size}"}
        return {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self.size),
            "Content-MD5": base64.b64encode(bytes.fromhex(self.md5)).decode(),
            **whole,
        }


class Reading:
    """One reading of a file, in order. A piece is read again when it is sent: it is still in memory then."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._version = _version(file.path)
        if self._version[0] != file.size:
            raise changed(file)

    def pieces(self, part_size: int) -> Iterator[Piece]:
        """Its parts; with a part size of 0 the whole file as one piece."""
        file = self._file
        with open_to_read(file.path) as stream:
            for number, offset in enumerate(range(0, file.size, part_size or file.size), start=1):
                size = min(part_size or file.size, file.size - offset)
                yield Piece(file, number if part_size else 0, offset, size, self._read(stream, size))
        self.check()

    def check(self) -> None:
        """Raises when the file is not what it was when the reading began."""
        if self._version != _version(self._file.path):
            raise changed(self._file)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def _read(self, stream: BinaryIO, size: int) -> str:
        md5 = hashlib.md5(usedforsecurity=False)
        for chunk in chunks(stream, size, self._file):
            md5.update(chunk)
            self._sha256.update(chunk)
        return md5.hexdigest()


def chunks(stream: BinaryIO, size: int, file: LocalFile) -> Iterator[bytes]:
    """Exactly so many bytes of an open file, from where it stands."""
    left = size
    while left:
        chunk = stream.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise changed(file)
        left -= len(chunk)
        yield chunk


def is_still(piece: Piece) -> bool:
    """Whether the file has the bytes that the piece was made of."""
    md5 = hashlib.md5(usedforsecurity=False)
    with open_to_read(piece.file.path) as stream:
        stream.seek(piece.offset)
        for chunk in chunks(stream, piece.size, piece.file):
            md5.update(chunk)
    return md5.hexdigest() == piece.md5


def changed(file: LocalFile) -> Stopped:
    return Stopped(f"{file.path} changed while it was uploaded")


def open_to_read(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise Stopped(f"cannot read {path}: {error.strerror}") from None


def _version(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise Stopped(f"cannot read {path}: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns
