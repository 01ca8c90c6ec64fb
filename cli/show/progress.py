"""What a person sees while something takes time: a live region on a terminal, plain lines elsewhere."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from cli.errors import printable
from cli.show.live import Region, spinner
from cli.show.output import Output
from cli.show.readable import byte_size, span
from cli.show.terminal import cell_width, shortened, speaks_unicode

PLAIN_SECONDS = 2.0
_MOST_LINES = 6
_SPEED_SECONDS = 10.0
_WIDEST_BAR = 40
_LEAST_BAR = 6


class StatusLine(Protocol):
    """Shows the newest state of something that is waited for: the state, and words two spaces apart."""

    def __call__(self, text: str) -> None: ...


@contextmanager
def status_line(output: Output) -> Iterator[StatusLine]:
    """Redrawn on a terminal; elsewhere a new line when the text changed, every 2 s at most."""
    if not output.live:
        with plain_lines(output) as show:
            yield show
        return
    newest = [""]
    started = time.monotonic()

    def draw(columns: int, lines: int) -> Sequence[str]:
        gone = time.monotonic() - started
        head, *words = newest[0].split("  ")
        clock = span(gone)
        first = (spinner(output.stderr, gone), shortened(head, columns - len(clock) - 3), clock)
        return flowed([" ".join(filter(None, first)), *words], columns, min(_MOST_LINES, lines))

    with Region(output, draw):
        yield lambda text: newest.__setitem__(0, printable(text))


def flowed(words: Sequence[str], columns: int, most: int, *, indent: str = "  ") -> list[str]:
    """The words, two spaces apart, on as many lines as they need; what has no room is cut off."""
    lines: list[str] = []
    for word in filter(None, words):
        if lines and cell_width(lines[-1]) + 2 + cell_width(word) <= columns:
            lines[-1] += f"  {word}"
        elif len(lines) < most:
            lines.append(shortened(f"{indent}{word}" if lines else word, columns))
        elif not lines:
            break
        else:
            lines[-1] = shortened(f"{lines[-1]}  {word}", columns)
            break
    return lines


@contextmanager
def plain_lines(output: Output) -> Iterator[StatusLine]:
    printed, newest, printed_at = "", "", float("-inf")

    def show(text: str) -> None:
        nonlocal printed, newest, printed_at
        newest = text
        now = time.monotonic()
        if text != printed and now - printed_at >= PLAIN_SECONDS:
            output.note(text)
            printed, printed_at = text, now

    yield show
    if newest != printed:
        output.note(newest)


@dataclass
class Transfer:
    """How far a transfer is. Called with the bytes that passed (negative ones when a file starts over)."""

    verb: str
    total: int | None
    done: int = 0
    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def __call__(self, count: int) -> None:
        self.done += count

    def speed(self, now: float) -> float:
        """Bytes a second over the last few seconds; 0 while nothing is known."""
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and now - self._marks[0][0] > _SPEED_SECONDS:
            self._marks.popleft()
        then, done = self._marks[0]
        return max(0.0, (self.done - done) / (now - then)) if now > then else 0.0


@contextmanager
def transfer_bar(output: Output, verb: str, total: int | None, *, quiet: bool = False) -> Iterator[Transfer]:
    """One bar for everything that is transferred, however many files it is."""
    transfer = Transfer(verb, total)
    if quiet or output.quiet:
        yield transfer
        return
    if not output.live:
        output.note(f"{verb} {byte_size(total)}" if total is not None else verb)
        yield transfer
        return
    fancy = speaks_unicode(output.stderr)

    def draw(columns: int, _lines: int) -> Sequence[str]:
        return [bar_line(transfer, transfer.speed(time.monotonic()), columns, fancy=fancy)]

    with Region(output, draw, keep=True):
        yield transfer


def bar_line(transfer: Transfer, speed: float, columns: int, *, fancy: bool = True) -> str:
    """What fits of: the verb, a bar, the share, the sizes, the speed, and the time left."""
    share = _share(transfer)
    percent = f"{share:4.0%}" if share is not None else byte_size(transfer.done)
    # In the order of their worth; each is shown when there is room for it.
    extras = {"left": _left(transfer, speed), "speed": f"{byte_size(speed)}/s" if speed else ""}
    extras["sizes"] = _sizes(transfer)
    shown = {"percent": percent}
    room = columns - cell_width(transfer.verb) - len(percent) - 1
    for name, text in extras.items():
        if text and len(text) + 2 <= room:
            shown[name] = text
            room -= len(text) + 2
    bar = _bar(share or 0.0, min(room - 2, _WIDEST_BAR), fancy) if share is not None else ""
    ordered = [shown[name] for name in ("percent", "sizes", "speed", "left") if name in shown]
    return shortened(" ".join([transfer.verb, *([bar] if bar else []), "  ".join(ordered)]), columns)


def _share(transfer: Transfer) -> float | None:
    if transfer.total is None:
        return None
    return min(1.0, max(0.0, transfer.done / transfer.total)) if transfer.total else 1.0


def _sizes(transfer: Transfer) -> str:
    return f"{byte_size(transfer.done)} of {byte_size(transfer.total)}" if transfer.total else ""


def _left(transfer: Transfer, speed: float) -> str:
    if not transfer.total or not speed or transfer.done >= transfer.total:
        return ""
    return f"{span((transfer.total - transfer.done) / speed)} left"


def _bar(share: float, width: int, fancy: bool) -> str:
    if width < _LEAST_BAR:
        return ""
    full = int(share * width)
    return "━" * full + "─" * (width - full) if fancy else "#" * full + "." * (width - full)
