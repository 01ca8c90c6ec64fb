"""What a person sees while something takes time: a live line or bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from cli.output import Output, byte_size, span

_PLAIN_SECONDS = 2.0


class StatusLine(Protocol):
    """Shows the newest state of something that is waited for."""

    def __call__(self, text: str) -> None: ...


@contextmanager
def status_line(output: Output) -> Iterator[StatusLine]:
    """A line that is redrawn on a terminal; elsewhere a new line when the text changed, every 2 s at most."""
    if not output.live:
        with _plain_lines(output) as show:
            yield show
        return
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    started = time.monotonic()
    with Status("", console=Console(file=output.stderr)) as status:
        yield lambda text: status.update(Text(f"{text}  {span(time.monotonic() - started)}"))


@contextmanager
def _plain_lines(output: Output) -> Iterator[StatusLine]:
    printed, newest, printed_at = "", "", float("-inf")

    def show(text: str) -> None:
        nonlocal printed, newest, printed_at
        newest = text
        now = time.monotonic()
        if text != printed and now - printed_at >= _PLAIN_SECONDS:
            output.note(text)
            printed, printed_at = text, now

    yield show
    if newest != printed:
        output.note(newest)


@contextmanager
def transfer_bar(
    output: Output, verb: str, total: int | None, *, quiet: bool
) -> Iterator[Callable[[int], None]]:
    """Yields a function that counts transferred bytes (negative ones when a file starts over)."""
    if quiet:
        yield lambda _count: None
        return
    if not output.live:
        output.note(f"{verb} {byte_size(total)}" if total is not None else verb)
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (TextColumn(verb), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=output.stderr)) as bar:
        task = bar.add_task(verb, total=total)
        yield lambda count: bar.advance(task, count)
