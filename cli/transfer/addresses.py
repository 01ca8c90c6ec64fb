"""Where the pieces of an upload go: signed URLs, some at a time, and others when they are too old."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.errors import CliError, Stopped
from cli.transfer.parts import Piece
from cli.transfer.retries import Address, Patience, patiently

Etags = Mapping[str, Mapping[str, str]]
Ask = Callable[[Mapping[str, int], Mapping[str, str], Etags], Mapping[str, Any]]
"""What `getUploadEndpoint` answers: asked for the parts of these files, each from a number on (of all files
when there are none), and told the SHA-256 of these, and the ETags of parts by file and number."""


@dataclass
class InParts:
    """A file that is sent in parts: how, and what the store has of it."""

    upload_id: str
    part_size: int
    stored: dict[int, str] = field(default_factory=dict)
    """Part number → ETag."""


class Addresses:
    """One for all threads of an upload."""

    def __init__(self, ask: Ask, patience: Patience) -> None:
        self._ask = ask
        self._patience = patience
        self._lock = threading.Lock()
        self._urls: dict[tuple[str, int], str] = {}
        self._in_parts: dict[str, InParts] = {}
        with self._lock:
            self._learn({}, {}, {})

    def all(self) -> list[str]:
        return list(self._urls.values())

    def in_parts(self, name: str) -> InParts | None:
        """How a file is sent in parts; None for one that is sent whole."""
        with self._lock:
            if (name, 0) in self._urls:
                return None
            if name not in self._in_parts:
                self._learn({name: 1}, {}, {})
            if name not in self._in_parts:
                raise CliError(f"the server gave no address for {name}")
            return self._in_parts[name]

    def of(self, piece: Piece) -> Address:
        with self._lock:
            url = self._find(piece)
        return Address(url, lambda old: self._renewed(piece, old))

    def announce(self, sha256: Mapping[str, str], etags: Etags) -> None:
        """Tells checksums of files and of parts, and looks anew at what the store has of them."""
        with self._lock:
            for parts in self._in_parts.values():
                parts.stored.clear()
            told = self._learn({}, sha256, etags)
            for name in self._in_parts.keys() - told:
                self._learn({name: 1}, {}, {})

    def has(self, piece: Piece, etag: str) -> bool:
        """Whether the store has a part as it was sent, by the ETag that it gave then, if it did."""
        with self._lock:
            parts = self._in_parts.get(piece.file.name)
            if not piece.number or parts is None:
                return True  # the answer to its PUT said so
            stored = parts.stored.get(piece.number)
            return stored is not None and etag in ("", stored)

    def _renewed(self, piece: Piece, old: str) -> str:
        with self._lock:
            if self._urls.get(_key(piece)) == old:
                del self._urls[_key(piece)]
            return self._find(piece)

    def _find(self, piece: Piece) -> str:
        if _key(piece) not in self._urls:
            self._learn({piece.file.name: piece.number} if piece.number else {}, {}, {})
        if _key(piece) not in self._urls:
            raise CliError(f"the server gave no address for {piece}")
        return self._urls[_key(piece)]

    def _learn(self, first_parts: Mapping[str, int], sha256: Mapping[str, str], etags: Etags) -> set[str]:
        """Asks; returns the files whose parts the answer tells of."""
        answer = patiently(lambda: self._ask(first_parts, sha256, etags), self._patience)
        for name, url in (answer.get("filenameToSignedUrls") or {}).items():
            self._urls[str(name), 0] = str(url)
        in_parts = answer.get("filenameToParts") or {}
        for name, parts in in_parts.items():
            self._learn_parts(str(name), parts)
        return set(in_parts)

    def _learn_parts(self, name: str, answer: Mapping[str, Any]) -> None:
        upload_id = str(answer.get("uploadId", ""))
        known = self._in_parts.setdefault(name, InParts(upload_id, int(answer["partSize"])))
        if known.upload_id != upload_id:
            raise Stopped(
                f"the upload of {name} is over: somebody else uploads other files there, or had them checked"
            )
        for number, etag in (answer.get("partNumberToEtag") or {}).items():
            known.stored[int(number)] = str(etag)
        for number, url in (answer.get("partNumberToSignedUrl") or {}).items():
            self._urls[name, int(number)] = str(url)


def _key(piece: Piece) -> tuple[str, int]:
    return piece.file.name, piece.number
