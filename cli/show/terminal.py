"""What the terminal can show: its width, whether it is watched, whether colours are welcome."""

import os
from collections.abc import Mapping
from typing import TextIO

FALLBACK = (80, 24)
_RESET = "\x1b[0m"
_COLOURS = {"green": "\x1b[32m", "yellow": "\x1b[33m", "red": "\x1b[31m", "dim": "\x1b[2m"}


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def can_redraw(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what was written can be written over."""
    return is_terminal(stream) and environ.get("TERM", "") not in ("dumb", "unknown")


def wants_colour(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour: NO_COLOR wins, then FORCE_COLOR and CLICOLOR_FORCE, then what the stream is."""
    if environ.get("NO_COLOR"):
        return False
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        if environ.get(name, "0") not in ("", "0"):
            return True
    return can_redraw(stream, environ) and environ.get("CLICOLOR") != "0"


def size(stream: TextIO) -> tuple[int, int]:
    """(columns, lines) of the terminal as it is now."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns = lines = 0
    return columns or _from_environment("COLUMNS", FALLBACK[0]), lines or _from_environment(
        "LINES", FALLBACK[1]
    )


def speaks_unicode(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def coloured(text: str, colour: str) -> str:
    return f"{_COLOURS[colour]}{text}{_RESET}" if colour else text


def cell_width(text: str) -> int:
    """How many cells the text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def shortened(text: str, width: int) -> str:
    """The text in at most `width` cells, ending in … where something is left out."""
    if cell_width(text) <= width:
        return text
    if width < 1:
        return ""
    kept, used = [], 0
    for character in text:
        used += cell_width(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"


def padded(text: str, width: int) -> str:
    return text + " " * (width - cell_width(text))


def _from_environment(name: str, fallback: int) -> int:
    given = os.environ.get(name, "")
    return int(given) if given.isdigit() and int(given) else fallback
