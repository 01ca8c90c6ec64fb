"""Sending files: each is read once, from front to back, and its pieces are sent a few at a time.

Nothing is held in memory but the chunk under way. What the store has already is recognised by its checksum
and not sent again, so a transfer that was cut, or a program that was killed, goes on where it stopped.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.errors import Stopped
from cli.transfer.addresses import Addresses, Ask
from cli.transfer.crew import Crew
from cli.transfer.local_files import LocalFile
from cli.transfer.parts import Piece, Reading, changed, chunks, is_still, open_to_read
from cli.transfer.retries import Patience, with_retries
from cli.transfer.storage import storage_client

if TYPE_CHECKING:
    import httpx

Count = Callable[[int], None]

ROUNDS = 4


def counted_once(count: Count) -> Count:
    """The same for many threads: of two at once one waits."""
    lock = threading.Lock()

    def counted(number: int) -> None:
        with lock:
            count(number)

    return counted


@dataclass
class Sent:
    """What an upload came to, in bytes."""

    size: int = 0
    kept: int = 0
    """What was in the store before."""


def upload(files: Sequence[LocalFile], ask: Ask, count: Count) -> Sent:
    """Puts every file where the server wants it, and tells it their checksums."""
    stop = threading.Event()
    patience = Patience(stop)
    addresses = Addresses(ask, patience)
    with storage_client(addresses.all()) as http:
        sender = Sender(http, addresses, patience, stop, count)
        with Crew(sender.send, stop) as crew:
            readings = {file.name: sender.read(file, crew) for file in files}
            crew.finish()
        for _ in range(ROUNDS):
            for reading in readings.values():
                reading.check()
            sums = {name: reading.sha256 for name, reading in readings.items()}
            if sender.is_complete(sums):
                return sender.sent
    raise Stopped("the store has parts other than they were sent; does somebody else upload there too?")


class Sender:
    def __init__(
        self,
        http: "httpx.Client",
        addresses: Addresses,
        patience: Patience,
        stop: threading.Event,
        count: Count,
    ) -> None:
        self._http = http
        self._addresses = addresses
        self._patience = patience
        self._stop = stop
        self._count = counted_once(count)
        self._etags: dict[Piece, str] = {}
        self._doubtful: list[Piece] = []
        self.sent = Sent()

    def read(self, file: LocalFile, crew: Crew[Piece]) -> Reading:
        """Reads a file and has the crew send what the store lacks."""
        parts = self._addresses.in_parts(file.name)
        reading = Reading(file)
        for piece in reading.pieces(parts.part_size if parts else 0):
            self.sent.size += piece.size
            if parts and parts.stored.get(piece.number) == piece.md5:
                self.sent.kept += piece.size
                self._count(piece.size)
                self._etags[piece] = piece.md5
            else:
                crew.give(piece)
        return reading

    def is_complete(self, sums: Mapping[str, str]) -> bool:
        """Announces what was sent, and has another look; whether the store has it all as it was sent.

        A part that was sent before with other bytes may still be in the store, or arrive there late. So the
        ETag of such a part is told first, and the part is sent again when that does not help.
        """
        told: dict[str, dict[str, str]] = {}
        for piece in self._doubtful:
            if self._etags[piece]:
                told.setdefault(piece.file.name, {})[str(piece.number)] = self._etags[piece]
        self._addresses.announce(sums, told)
        wrong = [piece for piece, etag in self._etags.items() if not self._addresses.has(piece, etag)]
        self._send_again([piece for piece in wrong if piece in self._doubtful])
        self._doubtful += [piece for piece in wrong if piece not in self._doubtful]
        return not wrong

    def _send_again(self, again: Sequence[Piece]) -> None:
        with Crew(self.send, self._stop) as crew:
            for piece in again:
                self._count(-piece.size)
                crew.give(piece)
            crew.finish()

    def send(self, piece: Piece) -> None:
        address = self._addresses.of(piece)
        with_retries(f"upload of {piece}", address, lambda url: self._put(piece, url), self._patience)

    def _put(self, piece: Piece, url: str) -> "httpx.Response":
        sent = 0

        def counted(number: int) -> None:
            nonlocal sent
            sent += number
            self._count(number)

        try:
            response = self._http.put(url, content=self._bytes(piece, counted), headers=piece.headers)
        except BaseException:
            self._count(-sent)
            raise
        if response.status_code >= 300:
            self._count(-sent)
            if "BadDigest" in response.text[:4000] and not is_still(piece):
                raise changed(piece.file)
        else:
            self._etags[piece] = response.headers.get("etag", "").strip('"')
        return response

    def _bytes(self, piece: Piece, count: Count) -> Iterator[bytes]:
        with open_to_read(piece.file.path) as stream:
            stream.seek(piece.offset)
            for chunk in chunks(stream, piece.size, piece.file):
                if self._stop.is_set():
                    raise Stopped(f"the upload of {piece} was stopped")
                count(len(chunk))
                yield chunk
