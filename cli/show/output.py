"""The one place that writes results: `Label: value` lines, tables, JSON or YAML. Notes go to stderr."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from cli.errors import printable
from cli.show.documents import MAPS, proto_names, write_json, write_yaml
from cli.show.readable import (
    PLAIN,
    Look,
    byte_size,
    label,
    local_time,
    scalar,
    span,
    state_colour,
    status_text,
)
from cli.show.tables import fitted_table, plain_table
from cli.show.terminal import can_redraw, coloured, is_terminal, size, speaks_unicode, wants_colour

if TYPE_CHECKING:
    from cli.resources import Resource

__all__ = ["Output", "byte_size", "local_time", "proto_names", "span", "standard_output", "text_lines"]

_FIRST = ("name", "displayName", "description", "createTime", "state", "status", "warnings")
_SENTENCES = frozenset({"warnings"})
"""Lists with a line for each."""


class Region(Protocol):
    """What is drawn on stderr at the moment."""

    def above(self, text: str) -> None:
        """Writes a line over it."""


class Output:
    """Results on stdout in the chosen format; everything else on stderr."""

    def __init__(self, format: str = "text", *, stdout: TextIO, stderr: TextIO, quiet: bool = False) -> None:
        self.format = format
        self.stdout = stdout
        self.stderr = stderr
        self.quiet = quiet
        """No notes and no progress; warnings and errors are still told."""
        self.region: Region | None = None

    @property
    def as_json(self) -> bool:
        """Whether the result is one document for programs: JSON, or the same as YAML."""
        return self.format != "text"

    @property
    def live(self) -> bool:
        """Whether someone watches stderr, so that what changes can be drawn there."""
        return not self.quiet and can_redraw(self.stderr)

    def resource(self, resource: Mapping[str, Any]) -> None:
        """One resource, whole."""
        if self.as_json:
            self.json(proto_names(resource))
        else:
            self._write(text_lines(resource, self._look()))

    def rows(
        self,
        kind: "Resource",
        rows: Sequence[Mapping[str, Any]],
        account_id: str,
        *,
        filtered: bool = False,
        none: str = "",
    ) -> None:
        """A list of resources; an empty one says so on stderr, in the words of `none` if there are any."""
        if self.as_json:
            self.json([proto_names(row) for row in rows])
            return
        if is_terminal(self.stdout):
            width = size(self.stdout)[0]
            self._write(fitted_table(kind.columns, rows, account_id, width, self._look()))
        else:
            self._write(plain_table(kind.columns, rows, account_id, self._look()))
        if not rows:
            where = "" if kind.noun == "account" else f" in accounts/{account_id}"
            self.note(none or f"No {kind.plural_words}{where}{' match the filter' if filtered else ''}")

    def inspection(self, report: Mapping[str, Any]) -> None:
        """What an inspection of a dataset found."""
        from cli.show.inspection import inspection_lines

        look = self._look()
        self._write(inspection_lines(report, colour=look.colour, unicode=speaks_unicode(self.stdout)))

    def json(self, value: Any) -> None:
        """One document, in the format that was asked for."""
        (write_yaml if self.format == "yaml" else write_json)(value, self.stdout)

    def line(self, text: str) -> None:
        """One line of a result."""
        self._write([printable(text)])

    def note(self, text: str) -> None:
        """One line for the person, never part of the result."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """A line that --quiet does not silence."""
        if self.region is not None:
            self.region.above(printable(text))
            return
        self.stderr.write(f"{printable(text)}\n")
        self.stderr.flush()

    def _write(self, lines: Sequence[str]) -> None:
        self.stdout.write("".join(f"{line}\n" for line in lines))

    def _look(self) -> Look:
        watched = is_terminal(self.stdout)
        return Look(watched, wants_colour(self.stdout), datetime.now(UTC) if watched else None)


def standard_output(format: str = "text", *, quiet: bool = False) -> Output:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the locale cannot write is spelled out
            stream.reconfigure(errors="backslashreplace")
    return Output(format, stdout=sys.stdout, stderr=sys.stderr, quiet=quiet)


def text_lines(resource: Mapping[str, Any], look: Look = PLAIN) -> list[str]:
    """`Label: value` lines; what is not set is left out."""
    ordered = [key for key in _FIRST if key in resource] + [key for key in resource if key not in _FIRST]
    return [line for key in ordered for line in _field_lines(key, resource[key], look)]


def _field_lines(key: str, value: Any, look: Look) -> list[str]:
    if value is None or value in ("", []) or (isinstance(value, str) and value.endswith("_UNSPECIFIED")):
        return []
    if key in MAPS and not value:
        return []
    title = label(key)
    if isinstance(value, Mapping):
        return _message_lines(key, title, value, look)
    if isinstance(value, list) and isinstance(value[0], Mapping):
        return [f"{title}:", *_block(value, look)]
    if isinstance(value, list) and key in _SENTENCES:
        return [f"{title}:", *(f"  {scalar(key, item, look)}" for item in value)]
    if isinstance(value, list):
        return [f"{title}: {', '.join(scalar(key, item, look) for item in value)}"]
    text = scalar(key, value, look)
    return [f"{title}: {_in_state_colour(key, text, look)}"]


def _message_lines(key: str, title: str, value: Mapping[str, Any], look: Look) -> list[str]:
    if key == "status":
        return [f"{title}: {_in_state_colour('status', status_text(value), look)}"]
    if key in MAPS:
        inner = [line for name, held in value.items() for line in _map_lines(key, str(name), held, look)]
    else:
        inner = [line for name, held in value.items() for line in _field_lines(name, held, look)]
    return [f"{title}:", *(f"  {line}" for line in inner)] if inner else [f"{title}: {{}}"]


def _map_lines(key: str, name: str, value: Any, look: Look) -> list[str]:
    """An entry of a map: its name is the user's own word, not a field's."""
    if isinstance(value, Mapping):
        return [f"{printable(name)}:", *(f"  {line}" for line in text_lines(value, look))]
    return [f"{printable(name)}: {scalar(key, value, look)}"]


def _block(items: list[Any], look: Look) -> list[str]:
    """A list of messages as firectl shows it: `[{`, indented fields, `},`, `{`, …, `}`, `]`."""
    lines: list[str] = []
    for index, item in enumerate(items):
        lines.append("[{" if index == 0 else "{")
        fields = ((key, value) for key, value in item.items() if value is not False)
        lines += [f"  {line}" for key, value in fields for line in _field_lines(key, value, look)]
        lines.append("}," if index < len(items) - 1 else "}")
    return [*lines, "]"]


def _in_state_colour(key: str, text: str, look: Look) -> str:
    if not look.colour or key not in ("state", "status"):
        return text
    fine = key == "state" or text == "OK" or text.startswith("OK: ")
    return coloured(text, state_colour(text.partition(":")[0]) if fine else "red")
