"""The one place that writes results: `Label: value` lines, tables, or JSON. Notes go to stderr."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from cli.errors import printable
from cli.options import snake_case

if TYPE_CHECKING:
    from cli.resources import Resource

# Their keys are the user's words, not field names.
_MAPS = frozenset(
    {"annotations", "loadTargets", "defaultSamplingParams", "filenameToSize", "scalingSchedules"}
)
_FIRST = ("name", "displayName", "description", "createTime", "state", "status")


class Output:
    """Results on stdout in the chosen format; everything else on stderr."""

    def __init__(self, *, as_json: bool, stdout: TextIO, stderr: TextIO) -> None:
        self.as_json = as_json
        self.stdout = stdout
        self.stderr = stderr

    def resource(self, resource: Mapping[str, Any]) -> None:
        """One resource, whole."""
        if self.as_json:
            self.json(proto_names(resource))
        else:
            self.stdout.write("".join(f"{line}\n" for line in text_lines(resource)))

    def rows(self, kind: "Resource", rows: Sequence[Mapping[str, Any]], account_id: str) -> None:
        """A list of resources."""
        if self.as_json:
            self.json([proto_names(row) for row in rows])
            return
        cells = [[printable(column.pick(row, account_id)) for column in kind.columns] for row in rows]
        self.stdout.write(table([column.title for column in kind.columns], cells))

    def json(self, value: Any) -> None:
        json.dump(value, self.stdout, indent=2, ensure_ascii=False)
        self.stdout.write("\n")

    def line(self, text: str) -> None:
        """One line of a result."""
        self.stdout.write(f"{printable(text)}\n")

    def note(self, text: str) -> None:
        """One line for the person, never part of the result."""
        self.stderr.write(f"{printable(text)}\n")
        self.stderr.flush()

    @property
    def live(self) -> bool:
        """Whether someone watches stderr, so that a progress bar makes sense."""
        return self.stderr.isatty()


def standard_output(as_json: bool) -> Output:
    return Output(as_json=as_json, stdout=sys.stdout, stderr=sys.stderr)


def proto_names(value: Any) -> Any:
    """The JSON form of the API with the field names of the protos: `createTime` becomes `create_time`."""
    if isinstance(value, list):
        return [proto_names(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        snake_case(key): _map_values(inner) if key in _MAPS else proto_names(inner)
        for key, inner in value.items()
    }


def _map_values(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: proto_names(inner) for key, inner in value.items()}
    return value


def text_lines(resource: Mapping[str, Any]) -> list[str]:
    """`Label: value` lines; what is not set is left out."""
    ordered = [key for key in _FIRST if key in resource] + [key for key in resource if key not in _FIRST]
    return [line for key in ordered for line in _field_lines(key, resource[key])]


def _field_lines(key: str, value: Any) -> list[str]:
    if value is None or value in ("", []) or (isinstance(value, str) and value.endswith("_UNSPECIFIED")):
        return []
    if key in _MAPS and not value:
        return []
    title = label(key)
    if key == "status" and isinstance(value, Mapping):
        return [f"{title}: {status_text(value)}"]
    if isinstance(value, Mapping):
        lines = [f"  {line}" for inner in value for line in _field_lines(inner, value[inner])]
        return [f"{title}:", *lines] if lines else [f"{title}: {{}}"]
    if isinstance(value, list) and isinstance(value[0], Mapping):
        return [f"{title}:", *_block(value)]
    if isinstance(value, list):
        return [f"{title}: {', '.join(_scalar(key, item) for item in value)}"]
    return [f"{title}: {_scalar(key, value)}"]


def _block(items: list[Any]) -> list[str]:
    """A list of messages as firectl shows it: `[{`, indented fields, `},`, `{`, …, `}`, `]`."""
    lines: list[str] = []
    for index, item in enumerate(items):
        lines.append("[{" if index == 0 else "{")
        fields = ((key, value) for key, value in item.items() if value is not False)
        lines += [f"  {line}" for key, value in fields for line in _field_lines(key, value)]
        lines.append("}," if index < len(items) - 1 else "}")
    return [*lines, "]"]


def status_text(status: Mapping[str, Any]) -> str:
    """`CODE`, or `CODE: message`."""
    code, message = str(status.get("code") or "OK"), str(status.get("message") or "")
    return printable(f"{code}: {message}" if message else code)


def _scalar(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if isinstance(value, str) and key.endswith(("Time", "timestamp")):
        text = local_time(text)
    elif isinstance(value, float):
        text = f"{value:g}"
    return printable(text)


_ACRONYMS = {"id": "ID", "url": "URL", "uri": "URI", "api": "API", "wandb": "W&B"}


def label(key: str) -> str:
    """`createTime` becomes `Create Time`."""
    return " ".join(_ACRONYMS.get(word, word[:1].upper() + word[1:]) for word in snake_case(key).split("_"))


def local_time(stamp: str) -> str:
    """An RFC 3339 time in local time; text that is none stays as it is."""
    if not stamp:
        return ""
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table under two header lines, columns four spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    rule = ["=" * width for width in widths]
    return "".join(f"{_row(cells, widths)}\n" for cells in (titles, rule, *rows))


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "    ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def byte_size(count: float) -> str:
    """`1536` becomes `1.5 KB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def span(total_seconds: float) -> str:
    """`75` becomes `1m15s`."""
    whole = int(total_seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
