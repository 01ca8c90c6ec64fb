"""How values from users' files appear in messages: short, printable, and never more than ASCII."""

from __future__ import annotations

import json
from typing import Any

SHOWN_CHARACTERS = 60


def shown(value: Any) -> str:
    """A value as JSON, cut to a length that fits a sentence. Lone surrogates and controls are escaped."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "an array"
    text = json.dumps(value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def listed(names: list[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    text = ", ".join(shown(name).strip('"') for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"
