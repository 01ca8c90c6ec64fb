"""Checks of single request values. Each takes the field's name and its value, and returns what it means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.errors import GatewayError, invalid

Check = Callable[[str, Any], Any]

SHOWN_VALUE = 100
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for text that is no JSON, no UTF-8, or nested beyond reason."""


def extra_input(field: str, value: object) -> GatewayError:
    """The refusal of a field that the API does not have, in the API's own words."""
    return invalid(f"Extra inputs are not permitted, field: '{field}', value: {shown(value)}", field)


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_VALUE else text[:SHOWN_VALUE] + "…"


def boolean(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid(f"'{field}' must be true or false, not {shown(value)}", field)
    return value


def string(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(f"'{field}' must be a string, not {shown(value)}", field)
    return value


def mapping(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"'{field}' must be an object, not {shown(value)}", field)
    return value


def only(field: str, value: dict[str, Any], allowed: set[str]) -> None:
    """Refuse members of an object that the API does not have; null members count as absent."""
    for name, inner in value.items():
        if name not in allowed and inner is not None:
            raise extra_input(f"{field}.{name}", inner)


def number(low: float, high: float) -> Check:
    def check(field: str, value: Any) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not low <= value <= high:
            raise invalid(f"'{field}' must be a number from {low:g} to {high:g}, not {shown(value)}", field)
        return float(value)

    return check


def integer(low: int, high: int | None = None) -> Check:
    def check(field: str, value: Any) -> int:
        good = isinstance(value, int) and not isinstance(value, bool)
        if not good or value < low or (high is not None and value > high):
            bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise invalid(f"'{field}' must be an integer {bounds}, not {shown(value)}", field)
        return int(value)

    return check


def one_of(*allowed: str) -> Check:
    def check(field: str, value: Any) -> str:
        if value not in allowed:
            raise invalid(f"'{field}' must be one of {', '.join(allowed)}, not {shown(value)}", field)
        return str(value)

    return check


def stop_strings(field: str, value: Any) -> list[str]:
    """One to four non-empty strings, or one."""
    listed = [value] if isinstance(value, str) else value
    good = isinstance(listed, list) and all(isinstance(item, str) and item for item in listed)
    if not good or len(listed) > 4:
        raise invalid(f"'{field}' must be a non-empty string or a list of at most 4 of them", field)
    return list(listed)


def logit_bias(field: str, value: Any) -> dict[str, float]:
    """Token id → bias. Ids come as strings, since they are JSON keys."""
    within = number(-100, 100)
    biases = {}
    for token, bias in mapping(field, value).items():
        if not token.isascii() or not token.isdigit():
            raise invalid(f"the keys of '{field}' must be token ids, not {shown(token)}", field)
        biases[token] = within(f"{field}.{token}", bias)
    return biases


def string_map(field: str, value: Any) -> dict[str, str]:
    for name, inner in mapping(field, value).items():
        string(f"{field}.{name}", inner)
    return dict(value)


def json_schema(field: str, value: Any) -> dict[str, Any]:
    """A JSON Schema, given as an object or as the JSON text of one."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except NOT_JSON:
            raise invalid(f"'{field}' is a string that is not valid JSON", field) from None
    return mapping(field, value)
