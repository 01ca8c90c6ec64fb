"""A real terminal with firectl in it: what a person would see is what a test looks at.

The server is the stand-in of the tests of firectl: these are tests of what is drawn, not of what the real
server answers.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pyte
import pytest

from tests.cli.conftest import ACCOUNT, StandIn, api, home

__all__ = ["api", "home"]

SECONDS = 20.0
"""How long a test waits for what it wants to see."""
FIRECTL = [sys.executable, "-c", "from cli.__main__ import main; main()"]


class Terminal:
    """A program in a terminal of so many columns and lines, and the screen as it is now."""

    def __init__(self, argv: list[str], environ: dict[str, str], columns: int, lines: int) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        self._child = pexpect.spawn(
            argv[0], argv[1:], env=environ, dimensions=(lines, columns), timeout=SECONDS
        )

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, without the empty lines at its end."""
        shown = [line.rstrip() for line in self.screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def has_cursor(self) -> bool:
        return not self.screen.cursor.hidden

    def until(self, seen: Callable[[], bool]) -> None:
        """Until the screen is as wanted; fails with what stands there after the deadline."""
        deadline = time.monotonic() + SECONDS
        while not seen():
            if not self._read() and not seen():
                pytest.fail(f"the program ended before that was seen:\n{self.text}")
            if time.monotonic() > deadline:
                pytest.fail(f"that was never seen:\n{self.text}")

    def until_shown(self, *words: str) -> None:
        self.until(lambda: all(word in self.text for word in words))

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self._child.setwinsize(lines, columns)

    def interrupt(self) -> None:
        self._child.sendintr()

    def terminate(self) -> None:
        self._child.kill(signal.SIGTERM)

    def ended(self) -> int:
        """Reads to the end; the exit code."""
        deadline = time.monotonic() + SECONDS
        while self._read():
            if time.monotonic() > deadline:
                pytest.fail(f"it did not end:\n{self.text}")
        self._child.close()
        return int(self._child.exitstatus if self._child.exitstatus is not None else -1)

    def close(self) -> None:
        self._child.close(force=True)

    def _read(self) -> bool:
        """Takes in what has been written meanwhile; False when the program has ended."""
        try:
            piece = self._child.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.written += piece
        self._stream.feed(piece)
        return True


@pytest.fixture
def environ(api: StandIn, home: Path) -> dict[str, str]:
    """The surroundings of a user of the account `acme`."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "FIREWORKS_API_KEY": "fw_test",
        "FIREWORKS_ACCOUNT_ID": ACCOUNT,
        "FIREWORKS_BASE_URL": api.url,
    }


@pytest.fixture
def terminal(environ: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    """Opens a terminal in which firectl runs with these arguments."""
    opened: list[Terminal] = []

    def open_terminal(*argv: str, columns: int = 100, lines: int = 24, **more: str) -> Terminal:
        opened.append(Terminal([*FIRECTL, *argv], {**environ, **more}, columns, lines))
        return opened[-1]

    yield open_terminal
    for terminal in opened:
        terminal.close()
