"""Whether what a cluster holds is what was declared. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.node_pools import QUANTITY
from controlplane.sizing import quantity_bytes


def holds(declared: Any, found: Any) -> bool:
    """Whether everything declared is in what was found; what others or the server added does not matter."""
    if isinstance(declared, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and holds(value, found[key]) for key, value in declared.items()
        )
    if isinstance(declared, Sequence) and not isinstance(declared, str):
        return isinstance(found, Sequence) and all(
            any(holds(each, other) for other in found) for each in declared
        )
    return bool(declared == found) or _same_quantity(declared, found)


def is_left_over(declared: Any, owned: Mapping[str, Any]) -> bool:
    """Whether we own what we do not declare any more. `owned` is a tree of fields, as `FieldsV1` is."""
    return any(
        _is_gone(declared, path) or is_left_over(_part(declared, path), below)
        for path, below in owned.items()
        if path != "."
    )


def owned_fields(found: Mapping[str, Any], manager: str) -> Mapping[str, Any]:
    """What this manager has applied to the object and not taken back since."""
    for entry in found["metadata"].get("managedFields") or []:
        if entry.get("manager") == manager and entry.get("operation") == "Apply":
            fields: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return fields
    return {}


def _is_gone(declared: Any, path: str) -> bool:
    kind, _, name = path.partition(":")
    if kind == "f":
        return isinstance(declared, Mapping) and name not in declared
    return kind in ("k", "v") and _part(declared, path) is None


def _part(declared: Any, path: str) -> Any:
    """A field by its name, an item of a list by its keys or its value."""
    kind, _, name = path.partition(":")
    if kind == "f":
        return declared.get(name) if isinstance(declared, Mapping) else None
    if not isinstance(declared, Sequence) or isinstance(declared, str) or kind not in ("k", "v"):
        return None
    wanted = json.loads(name)
    return next((each for each in declared if _is_item(each, wanted, by_keys=kind == "k")), None)


def _is_item(item: Any, wanted: Any, *, by_keys: bool) -> bool:
    """Keys that are not declared have their default."""
    if not by_keys or not isinstance(item, Mapping):
        return bool(item == wanted)
    return all(item.get(key, value) == value for key, value in wanted.items())


def _same_quantity(declared: Any, found: Any) -> bool:
    """The server spells quantities its own way: 1000m is 1."""
    if not (isinstance(declared, str) and isinstance(found, str)):
        return False
    if not (QUANTITY.fullmatch(declared) and QUANTITY.fullmatch(found)):
        return False
    return quantity_bytes(declared) == quantity_bytes(found)
