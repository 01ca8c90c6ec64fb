"""What a person sees while the platform runs: one line for each event, with the part's name in its colour."""

from __future__ import annotations

import sys
import time
from typing import TextIO

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92)
WIDTH = 10


class Reporter:
    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._coloured = self._stream.isatty()
        self._colour_of: dict[str, int] = {}

    def tell(self, name: str, message: str) -> None:
        label = f"{name:<{WIDTH}}"
        if self._coloured:
            colour = self._colour_of.setdefault(name, COLOURS[len(self._colour_of) % len(COLOURS)])
            label = f"\033[{colour}m{label}\033[0m"
        try:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {label} {message}\n")
            self._stream.flush()
        except OSError:
            self._stream = open("/dev/null", "w")  # noqa: SIM115  the terminal is gone; the platform goes on
