"""Whether what a cluster holds is what was declared. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.node_pools import QUANTITY
from workers.runtimes.kubernetes.sizing import quantity_bytes


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


def _same_quantity(declared: Any, found: Any) -> bool:
    """The server spells quantities its own way: 1000m is 1."""
    if not (isinstance(declared, str) and isinstance(found, str)):
        return False
    if not (QUANTITY.fullmatch(declared) and QUANTITY.fullmatch(found)):
        return False
    return quantity_bytes(declared) == quantity_bytes(found)
