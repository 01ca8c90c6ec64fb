"""Flags as data: what `--name` means for the request body, and the value forms that firectl takes."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from cli.errors import UsageError


class Kind(Enum):
    """The form of a flag's value."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    SWITCH = "switch"
    DURATION = "duration"  # Go syntax in, "600s" out
    PAIRS = "pairs"  # k=v, repeated or comma-joined, numbers as values
    WORDS = "words"  # repeated or comma-joined
    ACCELERATOR = "accelerator"


@dataclass(frozen=True)
class Flag:
    """One flag and where its value goes.

    `path` is the camelCase path in the request body (`autoscalingPolicy.scaleUpWindow`), or `?name` for a
    query parameter.
    """

    name: str
    path: str
    help: str
    kind: Kind = Kind.TEXT
    also: tuple[str, ...] = ()
    group: str = ""
    """The heading that it stands under in the help; empty for the general one."""
    choices: tuple[str, ...] = ()
    """All values that it may have, where firectl knows them."""

    @property
    def parameter(self) -> str:
        return "flag_" + self.name.replace("-", "_")


@dataclass
class Fields:
    """What the flags given on a command line ask for."""

    body: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)

    @property
    def update_mask(self) -> str:
        """The body's paths in the form of a field mask: snake_case, comma-joined."""
        return ",".join(".".join(snake_case(part) for part in path.split(".")) for path in self.paths)


def fields_from_flags(flags: Iterable[Flag], values: Mapping[str, Any]) -> Fields:
    """Collects the flags that were given; a flag that was not given leaves no trace."""
    fields = Fields()
    for flag in flags:
        given = values.get(flag.parameter)
        if given is None or given == []:
            continue
        value = converted(flag, given)
        if flag.path.startswith("?"):
            fields.query[flag.path[1:]] = value
        else:
            put(fields.body, flag.path, value)
            fields.paths.append(flag.path)
    return fields


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Sets a dotted path in nested dicts."""
    *parents, last = path.split(".")
    for parent in parents:
        body = body.setdefault(parent, {})
    body[last] = value


def converted(flag: Flag, value: Any) -> Any:
    """A flag's value as the API takes it."""
    try:
        match flag.kind:
            case Kind.DURATION:
                return proto_duration(value)
            case Kind.PAIRS:
                return dict(_pair(item) for item in _split(value))
            case Kind.WORDS:
                return _split(value)
            case Kind.ACCELERATOR:
                return accelerator_type(value)
            case _:
                return chosen(value, flag.choices) if flag.choices else value
    except ValueError as error:
        raise UsageError(f"invalid value for --{flag.name}: {error}") from None


def chosen(value: str, choices: Sequence[str]) -> str:
    """The choice that is meant, whatever its case; ValueError names the near one."""
    found = next((choice for choice in choices if choice.lower() == value.lower()), None)
    if found is None:
        import difflib

        near = difflib.get_close_matches(value.lower(), [choice.lower() for choice in choices], n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f'"{value}" is not one of {", ".join(choices)}{meant}')
    return found


def number(text: str | float) -> float:
    """A number that JSON can hold; ValueError for anything else."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f'"{text}" is not a number')
    return found


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def seconds(text: str) -> float:
    """Seconds of a Go duration (`10m`, `1h30m`, `0`); ValueError says what is wrong."""
    if text in ("0", "+0"):
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'"{text}" is not a duration such as 30s, 10m or 1h30m')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def proto_duration(text: str) -> str:
    """`1h30m` becomes `5400s`."""
    return f"{round(seconds(text), 9):.9f}".rstrip("0").rstrip(".") + "s"


def accelerator_type(text: str) -> str:
    """`H100_80GB` is short for `NVIDIA_H100_80GB`."""
    name = text.upper().replace("-", "_")
    if name.startswith(("NVIDIA_", "AMD_", "ACCELERATOR_TYPE_")):
        return name
    return f"AMD_{name}" if name.startswith("MI") else f"NVIDIA_{name}"


def snake_case(name: str) -> str:
    """`createTime` becomes `create_time`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def camel_case(name: str) -> str:
    """`create_time` becomes `createTime`."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _split(values: Sequence[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _pair(text: str) -> tuple[str, float]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f'"{text}" is not of the form name=value')
    return key.strip(), number(value)
