"""Lists as tables: all of it in a pipe, what fits on a terminal, and blocks of lines where no table fits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cli.errors import printable
from cli.show.readable import Look, label, relative_time, scalar, state_colour
from cli.show.terminal import cell_width, coloured, padded, shortened

_WIDE_GAP, _NARROW_GAP = 4, 2
_FLOOR = 8
"""No column is made narrower than this: what is left would say nothing."""


@dataclass(frozen=True)
class Column:
    """A column of a list: its title, and its text for a row as a user of an account sees it."""

    title: str
    pick: Callable[[Mapping[str, Any], str], str]
    key: str = ""
    """The field that it shows, where that is one field; it tells times, states and counts."""
    rank: int = 2
    """How soon it is shortened on a narrow terminal: the higher, the sooner. 0: it is shortened last."""
    shorten: Callable[[str, int], str] = shortened
    """Its text in at most so many cells, or as few as it can do with."""
    is_time: bool = False


def plain_table(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], account_id: str, look: Look
) -> list[str]:
    """A table under two header lines, columns four spaces apart, as wide as it needs to be."""
    cells = [[printable(column.pick(row, account_id)) for column in columns] for row in rows]
    return _lines(columns, cells, _natural(columns, cells), _WIDE_GAP, look)


def fitted_table(
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    account_id: str,
    width: int,
    look: Look,
) -> list[str]:
    """The same for a terminal: times become relative, cells shorter; in the end rows become blocks."""
    cells = [[_text(column, row, account_id, look) for column in columns] for row in rows]
    for gap, relative in ((_WIDE_GAP, False), (_NARROW_GAP, False), (_NARROW_GAP, True)):
        if relative:
            cells = [_with_relative_times(columns, row, line) for row, line in zip(rows, cells, strict=True)]
        widths = _natural(columns, cells)
        if _total(widths, gap) <= width:
            return _lines(columns, cells, widths, gap, look)
    widths = _narrowed(columns, cells, widths, width)
    if _total(widths, _NARROW_GAP) > width:
        return _blocks(columns, cells, width, look)
    return _lines(columns, cells, widths, _NARROW_GAP, look)


def _text(column: Column, row: Mapping[str, Any], account_id: str, look: Look) -> str:
    text = printable(column.pick(row, account_id))
    return text if column.is_time or not column.key else scalar(column.key, text, look)


def _with_relative_times(
    columns: Sequence[Column], row: Mapping[str, Any], cells: Sequence[str]
) -> list[str]:
    now = datetime.now(UTC)
    return [
        relative_time(str(row.get(column.key) or ""), now) if column.is_time else cell
        for column, cell in zip(columns, cells, strict=True)
    ]


def _natural(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    return [
        max(cell_width(column.title), *(cell_width(line[at]) for line in cells), 0)
        for at, column in enumerate(columns)
    ]


def _total(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _narrowed(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], widths: Sequence[int], most: int
) -> list[int]:
    """Takes away cells where they are missed least: from the highest rank, there from the widest."""
    found = list(widths)
    floors = [_floor(column, [line[at] for line in cells]) for at, column in enumerate(columns)]
    floors[0] = max(floors[0], 0 if columns[0].rank == 0 else widths[0])  # what identifies a row stays whole
    order = sorted(range(len(columns)), key=lambda at: (-columns[at].rank, -found[at]))
    for at in order:
        spare = max(0, found[at] - floors[at])
        found[at] -= min(spare, max(0, _total(found, _NARROW_GAP) - most))
    return found


def _floor(column: Column, texts: Sequence[str]) -> int:
    return max((cell_width(column.shorten(text, _FLOOR)) for text in (column.title, *texts)), default=0)


def _lines(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], widths: Sequence[int], gap: int, look: Look
) -> list[str]:
    titles = [shortened(column.title, width) for column, width in zip(columns, widths, strict=True)]
    rule = ["=" * width for width in widths]
    header = [_joined([padded(text, width) for text, width in zip(line, widths, strict=True)], gap)
              for line in (titles, rule)]  # fmt: skip
    return header + [_line(columns, line, widths, gap, look) for line in cells]


def _line(columns: Sequence[Column], line: Sequence[str], widths: Sequence[int], gap: int, look: Look) -> str:
    shown = [
        _dressed(column, text, width, look) + " " * (width - cell_width(column.shorten(text, width)))
        for column, text, width in zip(columns, line, widths, strict=True)
    ]
    return _joined(shown, gap)


def _joined(cells: Sequence[str], gap: int) -> str:
    return (" " * gap).join(cells).rstrip()


def _dressed(column: Column, text: str, width: int, look: Look) -> str:
    shown = column.shorten(text, width)
    return coloured(shown, state_colour(text)) if look.colour and column.key == "state" else shown


def _blocks(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int, look: Look) -> list[str]:
    """Each row as `Label: value` lines, with an empty line between two rows."""
    lines: list[str] = []
    for index, line in enumerate(cells):
        lines += [""] if index else []
        for column, text in zip(columns, line, strict=True):
            title = label(column.title.lower().replace(" ", "_"))
            room = max(1, width - cell_width(title) - 2)
            lines += [f"{title}: {_dressed(column, text, room, look)}"] if text else []
    return lines
