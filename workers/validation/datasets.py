"""Checks a fine-tuning dataset as it streams by: one pass, bounded memory, every complaint with its line.

Rules: JSON Lines in UTF-8, one object a line, no empty lines, 1 to 3,000,000 rows, each at most 16 MiB, all
of one kind. The estimated token count follows `rows.estimate_tokens`, plus four tokens a message and the JSON
of tools and tool calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from workers.validation.jsonl import BadRow, parse_row, split_lines
from workers.validation.mistaken_files import recognise
from workers.validation.preference_rows import check_preference_row, is_preference_row
from workers.validation.rows import RowCounts, check_chat_row, check_text_row

Format = Literal["CHAT", "COMPLETION", "PREFERENCE"]
# Of each format: what its rows are, that a row of it is none of another, and that a row is none of it.
_SAID: dict[Format, tuple[str, str, str]] = {
    "CHAT": ("rows with messages", "has messages", "has no messages"),
    "COMPLETION": ("rows of text fields", "", ""),
    "PREFERENCE": ("pairs of answers", "has two answers to choose from", "has no preferred_output"),
}

MAX_ROW_BYTES = 16 * 1024 * 1024
MAX_EXAMPLES = 3_000_000


@dataclass(frozen=True)
class DatasetLimits:
    row_bytes: int = MAX_ROW_BYTES
    examples: int = MAX_EXAMPLES
    reported_rows: int = 100


@dataclass(frozen=True)
class BadLine:
    line: int
    """Counted from 1; 0 where the complaint is about the whole file."""
    reason: str
    file: str = ""


@dataclass(frozen=True)
class DatasetReport:
    """What the check found. Good when `bad_row_count` is 0; counts are of all rows, good and bad."""

    format: Format | None
    """None where no row told."""
    example_count: int
    bad_row_count: int
    bad_rows: list[BadLine]
    """The first hundred."""
    estimated_token_count: int
    average_turn_count: float
    """User messages a row; 0 for a completion dataset."""
    bytes: int
    sha256: str
    fields: list[str] = field(default_factory=list)
    """Of a completion dataset: the fields that every good row has, sorted. Templates may use these."""

    @property
    def ok(self) -> bool:
        return self.bad_row_count == 0

    def first_problem(self) -> str:
        """One sentence for the owner; empty when all is well."""
        if not self.bad_rows:
            return ""
        bad = self.bad_rows[0]
        place = " ".join(part for part in (bad.file, f"line {bad.line}" if bad.line else "") if part)
        more = f" ({self.bad_row_count} bad rows in all)" if self.bad_row_count > 1 else ""
        return (f"{place}: " if place else "") + bad.reason + more

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def validate_dataset(
    chunks: Iterable[bytes], format: Format | None = None, limits: DatasetLimits | None = None
) -> DatasetReport:
    """Read one JSONL file to its end and report. `format` None: the first readable row decides.

    Errors of `chunks` itself (the store went away) pass through; nothing in the bytes raises.
    """
    source = _Measured(chunks)
    check = _DatasetCheck(format, limits or DatasetLimits())
    for line in split_lines(source, check.limits.row_bytes):
        check.take(line)
    return check.report(source.bytes, source.sha256.hexdigest())


def merge_reports(reports: Mapping[str, DatasetReport], limits: DatasetLimits | None = None) -> DatasetReport:
    """One report for a dataset of several files, each checked with the format of the first; by file name."""
    limits = limits or DatasetLimits()
    parts = list(reports.items())
    examples = sum(part.example_count for _, part in parts)
    bad = [replace(row, file=name) for name, part in parts for row in part.bad_rows]
    bad_count = sum(part.bad_row_count for _, part in parts)
    if not parts or (examples > limits.examples and not bad):
        bad, bad_count = [*bad, BadLine(0, _wrong_count(examples, limits.examples))], bad_count + 1
    turns = sum(part.average_turn_count * part.example_count for _, part in parts)
    fields = set(parts[0][1].fields).intersection(*(part.fields for _, part in parts)) if parts else set()
    return DatasetReport(
        format=next((part.format for _, part in parts if part.format), None),
        example_count=examples,
        bad_row_count=bad_count,
        bad_rows=bad[: limits.reported_rows],
        estimated_token_count=sum(part.estimated_token_count for _, part in parts),
        average_turn_count=turns / examples if examples else 0.0,
        bytes=sum(part.bytes for _, part in parts),
        sha256=hashlib.sha256("".join(part.sha256 for _, part in parts).encode()).hexdigest(),
        fields=sorted(fields),
    )


def format_of(row: dict[str, Any]) -> Format:
    if is_preference_row(row):
        return "PREFERENCE"
    return "CHAT" if "messages" in row else "COMPLETION"


class _Measured:
    """Passes chunks on, counting and hashing them."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.bytes = 0
        self.sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.bytes += len(chunk)
            self.sha256.update(chunk)
            yield chunk


class _DatasetCheck:
    def __init__(self, format: Format | None, limits: DatasetLimits) -> None:
        self.limits = limits
        self._format = format
        self._format_line = 0
        self._line = 0
        self._examples = 0
        self._bad_count = 0
        self._bad: list[BadLine] = []
        self._tokens = 0
        self._turns = 0
        self._fields: set[str] | None = None
        self._blank_lines: list[int] = []
        self._blank_count = 0

    def take(self, line: bytes | None) -> None:
        self._line += 1
        if line is not None and (not line or line.isspace()):
            self._hold_blank()
            return
        self._report_blanks()
        self._examples += 1
        if self._examples > self.limits.examples:
            return
        try:
            counts = self._check(line)
        except BadRow as error:
            mistaken = recognise(line) if self._line == 1 and line is not None else ""
            self._complain(self._line, mistaken or error)
        else:
            self._tokens += counts.tokens
            self._turns += counts.turns

    def report(self, size: int, sha256: str) -> DatasetReport:
        if not 0 < self._examples <= self.limits.examples:
            self._bad.insert(0, BadLine(0, _wrong_count(self._examples, self.limits.examples)))
            self._bad_count += 1
        return DatasetReport(
            format=self._format,
            example_count=self._examples,
            bad_row_count=self._bad_count,
            bad_rows=self._bad[: self.limits.reported_rows],
            estimated_token_count=self._tokens,
            average_turn_count=self._turns / self._examples if self._examples else 0.0,
            bytes=size,
            sha256=sha256,
            fields=sorted(self._fields or ()),
        )

    def _check(self, line: bytes | None) -> RowCounts:
        if line is None:
            raise BadRow(f"the line is longer than {self.limits.row_bytes} bytes")
        row = parse_row(line)
        self._agree_on_format(row)
        if self._format == "CHAT":
            return check_chat_row(row)
        if self._format == "PREFERENCE":
            return check_preference_row(row)
        counts = check_text_row(row)
        if self._fields is None:
            self._fields = set(row)
        elif self._fields != row.keys():
            self._fields &= row.keys()
        return counts

    def _agree_on_format(self, row: dict[str, Any]) -> None:
        """The first row that parses decides, where the caller has not; the others must be of its kind."""
        found = format_of(row)
        if self._format is None:
            self._format, self._format_line = found, self._line
        elif found != self._format:
            since = f" since line {self._format_line}" if self._format_line else ""
            expected, _, lacks = _SAID[self._format]
            what = _SAID[found][1] or lacks
            raise BadRow(
                f"the row {what}, but the dataset holds {expected}{since}; one dataset is of one kind"
            )

    def _complain(self, line: int, reason: BadRow | str) -> None:
        self._bad_count += 1
        if len(self._bad) < self.limits.reported_rows:
            self._bad.append(BadLine(line, str(reason)))

    def _hold_blank(self) -> None:
        """Empty lines at the end are no rows; whether these are the end only the next line tells."""
        self._blank_count += 1
        if len(self._blank_lines) < self.limits.reported_rows:
            self._blank_lines.append(self._line)

    def _report_blanks(self) -> None:
        for line in self._blank_lines:
            self._complain(line, "the line is empty")
        self._bad_count += self._blank_count - len(self._blank_lines)
        self._blank_lines, self._blank_count = [], 0


def _wrong_count(examples: int, most: int) -> str:
    if examples == 0:
        return "the dataset is empty: it must hold at least one row"
    return f"the dataset holds {examples} rows; at most {most} are allowed"
