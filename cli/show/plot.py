"""A curve drawn in the terminal: a line of braille dots, marks, and two axes.

Ours, and not a library's: the ones there are bring megabytes, or globals, for what takes a hundred lines.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]

LEAST_WIDTH, LEAST_HEIGHT = 16, 5
# The bits of the dots of a braille character, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800


@dataclass(frozen=True)
class Ink:
    """The characters that a terminal can show."""

    upright: str = "│"
    flat: str = "─"
    corner: str = "└"
    tick: str = "┤"
    mark: str = "●"
    dots: bool = True


UNICODE = Ink()
ASCII = Ink("|", "-", "+", "+", "o", dots=False)


@dataclass
class Canvas:
    """A field of dots, two by four in each cell, with marks that fill a whole cell."""

    columns: int
    rows: int
    cells: dict[tuple[int, int], int] = field(default_factory=dict)
    marks: set[tuple[int, int]] = field(default_factory=set)

    def dot(self, x: int, y: int) -> None:
        cell = (x // 2, y // 4)
        self.cells[cell] = self.cells.get(cell, 0) | _DOTS[y % 4][x % 2]

    def row(self, at: int, ink: Ink) -> str:
        return "".join(self._character(column, at, ink) for column in range(self.columns)).rstrip()

    def _character(self, column: int, row: int, ink: Ink) -> str:
        if (column, row) in self.marks:
            return ink.mark
        bits = self.cells.get((column, row), 0)
        if not bits:
            return " "
        return chr(_BRAILLE + bits) if ink.dots else "*"


@dataclass(frozen=True)
class Scale:
    """Maps values on dots."""

    low: float
    high: float
    dots: int

    def at(self, value: float) -> int:
        width = self.high - self.low
        return round((value - self.low) / width * (self.dots - 1)) if width else 0


def curve(
    line: Sequence[Point], marks: Sequence[Point], width: int, height: int, ink: Ink = UNICODE
) -> list[str]:
    """The lines of a chart of at most `width` by `height` cells; none when there is nothing to draw."""
    line, marks = _finite(line), _finite(marks)
    points = [*line, *marks]
    if not points or width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return []
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    if low == high:
        low, high = low - 0.5, high + 0.5
    labels = _labels(low, high)
    margin = max(map(len, labels))
    canvas = Canvas(width - margin - 2, height - 2)
    across, down = Scale(min(xs), max(xs), canvas.columns * 2), Scale(high, low, canvas.rows * 4)
    _draw_line(canvas, line, across, down)
    canvas.marks |= {(across.at(x) // 2, down.at(y) // 4) for x, y in marks}
    return [*_rows(canvas, labels, margin, ink), *_foot(min(xs), max(xs), canvas.columns, margin, ink)]


def _finite(points: Iterable[Point]) -> list[Point]:
    return sorted(point for point in points if all(map(math.isfinite, point)))


def _draw_line(canvas: Canvas, line: Sequence[Point], across: Scale, down: Scale) -> None:
    """Joins the points; of several in one column of dots their mean is drawn."""
    columns: dict[int, list[float]] = {}
    for x, y in line:
        columns.setdefault(across.at(x), []).append(y)
    last: tuple[int, int] | None = None
    for x, ys in columns.items():
        y = down.at(sum(ys) / len(ys))
        for dot in _between(last or (x, y), (x, y)):
            canvas.dot(*dot)
        last = (x, y)


def _between(start: tuple[int, int], end: tuple[int, int]) -> Iterable[tuple[int, int]]:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        share = step / steps
        yield (
            round(start[0] + (end[0] - start[0]) * share),
            round(start[1] + (end[1] - start[1]) * share),
        )


def _labels(low: float, high: float) -> list[str]:
    """The highest, middle and lowest value, told apart with as few digits as that takes."""
    values = (high, (high + low) / 2, low)
    for digits in range(3, 7):
        labels = [f"{value:.{digits}g}" for value in values]
        if len(set(labels)) == len(labels):
            break
    return labels


def _rows(canvas: Canvas, labels: Sequence[str], margin: int, ink: Ink) -> list[str]:
    places = {0: labels[0], canvas.rows // 2: labels[1], canvas.rows - 1: labels[2]}
    return [
        f"{places.get(at, ''):>{margin}} {ink.tick if at in places else ink.upright}{canvas.row(at, ink)}"
        for at in range(canvas.rows)
    ]


def _foot(first: float, last: float, columns: int, margin: int, ink: Ink) -> list[str]:
    left, right = f"{first:g}", f"{last:g}"
    steps = f"{left}{right.rjust(columns - len(left))}" if first != last else left
    indent = " " * (margin + 1)
    return [f"{indent}{ink.corner}{ink.flat * columns}", f"{indent} {steps}"]
