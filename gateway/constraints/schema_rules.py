"""What a JSON Schema has to be before it is read: of bounded depth, and valid wherever it refers to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jsonschema_rs

from gateway.constraints import limits
from gateway.constraints.schema_places import escaped, resolved_once

_LEVELS = 3 * limits.SCHEMA_DEPTH
"""Of JSON: `properties`, a property, and its list of choices are one level of a schema."""
TOO_DEEP = f"it is nested more than {limits.SCHEMA_DEPTH} levels deep"
_SCHEMA_2020 = "https://json-schema.org/draft/2020-12/schema"


class SchemaError(ValueError):
    """A schema that cannot be used; the message names the place."""


def require_valid(given: Any) -> None:
    """Raises SchemaError."""
    _require_shallow(given)
    _require_valid(given)
    _require_valid_targets(given)


def _require_shallow(given: Any) -> None:
    """What is nested without end would overflow the stack of all that looks into it."""
    level: list[Any] = [given] if isinstance(given, dict) else []
    for _ in range(_LEVELS):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise SchemaError(TOO_DEEP)


def _require_valid_targets(root: Any) -> None:
    """References may lead to places that the rules for schemas say nothing of."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        outer = waiting.pop()
        waiting += _parts(outer)
        for name in ("$ref", "$dynamicRef") if isinstance(outer, dict) else ():
            target = resolved_once(outer.get(name), root)
            if isinstance(target, dict) and id(target) not in seen:
                seen.add(id(target))
                _require_valid(target)


def _require_valid(given: Any) -> None:
    # As of the current draft, whatever it names: one that nobody knows would be looked for elsewhere.
    plain = {**given, "$schema": _SCHEMA_2020} if isinstance(given, dict) else given
    try:
        jsonschema_rs.meta.validate(plain)
    except jsonschema_rs.ValidationError as error:
        place = "/".join(["#", *(escaped(str(part)) for part in error.instance_path)])
        raise SchemaError(f"at {place[:200]}: it is no valid JSON Schema: {error.message[:200]}") from None


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
