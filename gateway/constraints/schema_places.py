"""Finding one's way in a JSON Schema: what references lead to, and whether choices are told apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import msgspec

SHOWN = 100
REFERENCES = 10
"""References that lead to references, in a row."""


def are_apart(choices: list[Any], root: Any) -> bool:
    """Whether no value can fit two of the choices: by their types, or by a constant that they require."""
    plain = [resolved(choice, root) for choice in choices]
    types = [choice.get("type") if isinstance(choice, dict) else None for choice in plain]
    if all(isinstance(each, str) for each in types) and len(set(types)) == len(types):
        return not {"integer", "number"} <= set(types)
    constants = [dict(_required_constants(choice)) for choice in plain]
    shared = set.intersection(*(set(each) for each in constants)) if constants else set()
    return any(_all_differ([each[name] for each in constants]) for name in shared)


def resolved(choice: Any, root: Any) -> Any:
    for _ in range(REFERENCES):
        reference = choice.get("$ref") if isinstance(choice, dict) else None
        if not isinstance(reference, str):
            return choice
        try:
            choice = found_at(root, unquote(reference))
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return None


def resolved_once(reference: Any, root: Any) -> Any:
    try:
        return found_at(root, unquote(reference)) if isinstance(reference, str) else None
    except (KeyError, IndexError, ValueError, TypeError):
        return None


def _required_constants(choice: Any) -> Iterator[tuple[str, frozenset[bytes]]]:
    if not isinstance(choice, dict) or choice.get("type") != "object":
        return
    for name, inner in choice.get("properties", {}).items():
        if (
            name in choice.get("required", ())
            and isinstance(inner, dict)
            and ("const" in inner or "enum" in inner)
        ):
            values = [inner["const"]] if "const" in inner else inner["enum"]
            yield name, frozenset(msgspec.json.encode(value) for value in values)


def _all_differ(sets: list[frozenset[bytes]]) -> bool:
    return len(frozenset().union(*sets)) == sum(map(len, sets))


def found_at(root: Any, pointer: str) -> Any:
    found = root
    for part in pointer.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        found = found[int(key)] if isinstance(found, list) else found[key]
    if not isinstance(found, dict | bool):
        raise ValueError(pointer)
    return found


def escaped(name: str) -> str:
    """A name as a part of a place; the places are for people, so that long ones are cut."""
    return name[:SHOWN].replace("~", "~0").replace("/", "~1")
