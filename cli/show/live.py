"""A region at the end of the terminal that is drawn anew while something goes on."""

import threading
from collections.abc import Callable, Sequence
from typing import Self, TextIO

from cli.show.output import Output
from cli.show.terminal import size, speaks_unicode

REFRESH_SECONDS = 0.1
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ASCII_SPINNER = "|/-\\"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"

Draw = Callable[[int, int], Sequence[str]]


class Region:
    """Draws what `draw(columns, lines)` gives, many times a second, until it is left.

    No line is to be wider than `columns`: a terminal would wrap it, and what was drawn could not be found
    again. The last column stays empty for the same reason. With `keep` the last drawing stays there.
    """

    def __init__(self, output: Output, draw: Draw, *, keep: bool = False) -> None:
        self._output = output
        self._stream: TextIO = output.stderr
        self._draw = draw
        self._keep = keep
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="region", daemon=True)
        self._height = 0

    def __enter__(self) -> Self:
        try:
            self._stream.write(_HIDE)
            self._output.region = self
            self._paint()
            self._thread.start()
        except BaseException:  # Ctrl-C may come before anybody could leave it
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._output.region = None
        self._over.set()
        try:
            if self._thread.is_alive():
                self._thread.join()
            if self._keep:
                self._paint()
                self._stream.write("\n")
            else:
                self._stream.write(f"{self._back()}\x1b[J")
        finally:  # at a second Ctrl-C too
            self._stream.write(_SHOW)
            self._stream.flush()

    def above(self, text: str) -> None:
        """Writes a line that stays, over the region."""
        with self._lock:
            self._stream.write(f"{self._back()}\x1b[J{text}\n")
            self._height = 0
        self._paint()

    def _refresh(self) -> None:
        while not self._over.wait(REFRESH_SECONDS):
            self._paint()

    def _paint(self) -> None:
        with self._lock:
            columns, lines = size(self._stream)
            drawn = list(self._draw(max(1, columns - 1), max(1, lines - 1)))[: max(1, lines - 1)]
            self._stream.write(self._back() + "\x1b[K\n".join(drawn) + "\x1b[J")
            self._stream.flush()
            self._height = len(drawn)

    def _back(self) -> str:
        """To the beginning of what was drawn last."""
        return f"\x1b[{self._height - 1}A\r" if self._height > 1 else "\r"


def spinner(stream: TextIO, seconds: float) -> str:
    frames = SPINNER if speaks_unicode(stream) else ASCII_SPINNER
    return frames[int(seconds / REFRESH_SECONDS) % len(frames)]
