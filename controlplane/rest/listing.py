"""What each list can be filtered and ordered by, as data."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import product
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from controlplane.rest.filters.fields import Field, Kind, enum, map_entry, resource_name, text, time
from controlplane.rest.schema import STATUS_CODES, ApiModel

SCALARS = (str, bool, int, float, datetime, timedelta)
NOT_SINGLE = "it is not a single value"


class FieldRefused(ValueError):
    """A list cannot be filtered or ordered by this; the text says why."""


@dataclass(frozen=True, eq=False)
class Listing:
    """How the messages of one collection are listed.

    `fields` has an entry for each scalar field of the message, by its snake_case path. Those that rows do
    not hold stand in `refused`, with the reason; those that the message cannot honour at all are refused
    with the message's own reason.
    """

    key: str
    """The collection's key in the answer."""
    message: type[ApiModel]
    unique: Any
    """A column that no two rows of a list have in common: the last thing that every list is ordered by."""
    fields: Mapping[str, Field]
    refused: Mapping[str, str] = field(default_factory=dict)
    order: str = "name"
    """The order of a list whose caller names none."""
    search: tuple[str, ...] = ("name", "display_name", "description")
    """Where a word that stands alone in a filter is looked for."""

    def find(self, path: tuple[str, ...]) -> Field:
        """The field at a path, in either spelling; FieldRefused when there is none to use."""
        found = self._by_spelling.get(path)
        if found is not None:
            return found
        whole = self._by_spelling.get(path[:1])
        if whole is not None and whole.kind is Kind.MAP:
            return map_entry(whole, ".".join(path[1:]))
        raise FieldRefused(self._why_not(path))

    @property
    def searched(self) -> list[Field]:
        return [self.fields[path] for path in self.search if path in self.fields]

    def _why_not(self, path: tuple[str, ...]) -> str:
        shown = ".".join(path)[:100]
        for length in range(len(path), 0, -1):
            if why := self._refusals.get(path[:length]):
                return f'"{shown}" cannot be used in lists of {self.key}: {why}'
        known = sorted(self.fields)
        near = difflib.get_close_matches(shown, {*known, *map(to_camel, known)}, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(known)}"
        return f'unknown field "{shown}"; {hint}'

    @cached_property
    def _by_spelling(self) -> dict[tuple[str, ...], Field]:
        return {
            spelling: replace(entry, nested=entry.nested or "." in path)
            for path, entry in self.fields.items()
            for spelling in spellings(path)
        }

    @cached_property
    def _refusals(self) -> dict[tuple[str, ...], str]:
        lists = {path: NOT_SINGLE for path, info in shown_fields(self.message) if not is_scalar(info)}
        reasons = {**lists, **dict(unsupported_paths(self.message)), **self.refused}
        return {spelling: why for path, why in reasons.items() for spelling in spellings(path)}


def spellings(path: str) -> Iterator[tuple[str, ...]]:
    """A snake_case path in snake_case, in camelCase, and mixed."""
    return product(*(sorted({part, to_camel(part)}) for part in path.split(".")))


def resource_fields(table: Any, collection: str) -> dict[str, Field]:
    """What all resources of an account have."""
    return {
        "name": resource_name(table, collection),
        "display_name": text(table.display_name),
        "create_time": time(table.create_time),
        "update_time": time(table.update_time),
    }


def state_fields(table: Any, states: tuple[str, ...]) -> dict[str, Field]:
    return {
        "state": enum(table.state, ("STATE_UNSPECIFIED", *states)),
        "status.code": enum(table.status_code, STATUS_CODES),
        "status.message": text(table.status_message),
    }


def shown_fields(message: type[ApiModel], place: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(path, field) of what a message shows, those of its inner messages too, but not those of lists."""
    for name, info in message.model_fields.items():
        if info.exclude:
            continue
        inner = inner_message(info)
        if inner is not None and inner.model_fields:
            yield from shown_fields(inner, f"{place}{name}.")
        else:
            yield place + name, info


def is_scalar(info: FieldInfo) -> bool:
    return any(issubclass(kind, SCALARS) for kind in types_of(info.annotation))


def inner_message(info: FieldInfo) -> type[ApiModel] | None:
    return next((kind for kind in types_of(info.annotation) if issubclass(kind, ApiModel)), None)


def types_of(annotation: Any) -> Iterator[type]:
    """The types that an annotation allows; of lists and maps none."""
    if get_origin(annotation) is Annotated:
        yield from types_of(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from types_of(each)
    elif isinstance(annotation, type):
        yield annotation


def unsupported_paths(message: type[ApiModel], place: str = "") -> Iterator[tuple[str, str]]:
    """(path, why) of what a message and its inner messages cannot honour."""
    for name, info in message.model_fields.items():
        if name in message.unsupported:
            yield place + name, message.unsupported[name]
        elif inner := inner_message(info):
            yield from unsupported_paths(inner, f"{place}{name}.")
