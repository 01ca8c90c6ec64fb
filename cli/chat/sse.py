"""Server-sent events, as far as answers of models need them: the data of each event, as it arrives."""

from collections.abc import Iterable, Iterator

from cli.errors import CliError

_LONGEST = 16 * 2**20  # bytes of one line


def event_data(chunks: Iterable[bytes]) -> Iterator[str]:
    """The data of each whole event. Comments, names and ids of events are skipped.

    Lines end at line feeds only: text may hold other characters that Python would take for line ends.
    """
    data: list[bytes] = []
    for line in _lines(chunks):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            yield b"\n".join(data).decode("utf-8", "replace")
            data = []


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines; what is left without its end is no line."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST:
            raise CliError("the server sends a line that does not end")
        yield from (line.removesuffix(b"\r") for line in whole)
