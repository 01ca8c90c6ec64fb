"""What a trainer printed, by byte, from a cluster that knows only times.

The API server gives a log from a second on, with the time of each line. So it is remembered at which byte
some of the seconds began: from the last such mark before a byte to it, lines are read again and passed over.
Who remembers nothing reads from the beginning, once.
"""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from workers.runtimes.base import RuntimeUnavailable
from workers.runtimes.kubernetes.cluster import Cluster, Document, Refused
from workers.runtimes.kubernetes.manifests import TRAINER

LOOK_SECONDS = 2.0
"""A running trainer is asked no more often than that, however often this is."""
MARK_BYTES = 16 * 1024
"""How far apart marks are at least."""
REMEMBERED_PODS = 1000
FRACTION = re.compile(r"\.\d+")


@dataclass
class Reading:
    """What is remembered of one pod's log."""

    bytes: list[int] = field(default_factory=lambda: [0])
    seconds: list[str] = field(default_factory=lambda: [""])
    """The second that begins at each of those bytes; the first is not known, and stands for the beginning."""
    looked: float = -LOOK_SECONDS

    def mark_before(self, start: int) -> tuple[int, str]:
        place = bisect_right(self.bytes, start) - 1
        return self.bytes[place], self.seconds[place]

    def note(self, place: int, second: str) -> None:
        if place >= self.bytes[-1] + MARK_BYTES:
            self.bytes.append(place)
            self.seconds.append(second)


class TrainerLogs:
    """Nothing of it must be kept: another worker comes to the same bytes."""

    def __init__(self) -> None:
        self._readings: dict[str, Reading] = {}
        self._lock = threading.Lock()

    def read(
        self, cluster: Cluster, pod: Document, start: int, length: int, *, ended: bool
    ) -> tuple[int, bytes]:
        """(start, at most `length` bytes); nothing where the log cannot be had now, or was just looked at."""
        reading = self._reading(pod["metadata"]["uid"])
        if not ended and time.monotonic() - reading.looked < LOOK_SECONDS:
            return start, b""
        reading.looked = time.monotonic()
        place, second = reading.mark_before(start)
        query = {"container": TRAINER, "timestamps": "true"} | ({"sinceTime": second} if second else {})
        metadata, found = pod["metadata"], b""
        with (
            suppress(Refused, RuntimeUnavailable),
            cluster.open_log(metadata["namespace"], metadata["name"], query) as chunks,
        ):
            found = take(_lines(chunks), reading, place, start, length)
        return start, found

    def _reading(self, pod_uid: str) -> Reading:
        with self._lock:
            if len(self._readings) > REMEMBERED_PODS:
                self._readings.clear()
            return self._readings.setdefault(pod_uid, Reading())


def take(lines: Iterable[tuple[str, bytes]], reading: Reading, place: int, start: int, length: int) -> bytes:
    """`length` bytes from byte `start` on, of lines of which the first begins at byte `place`."""
    taken, last = bytearray(), ""
    for second, line in lines:
        if last and second != last:
            reading.note(place, second)
        last = second
        taken += line[max(start - place, 0) :] if place + len(line) > start else b""
        place += len(line)
        if len(taken) >= length:
            break
    return bytes(taken[:length])


def _lines(chunks: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Each line's second, and the line."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (_parted(line + b"\n") for line in whole)
    if rest:
        yield _parted(rest)


def _parted(line: bytes) -> tuple[str, bytes]:
    moment, _, said = line.partition(b" ")
    return FRACTION.sub("", moment.decode("ascii", "replace")), said
