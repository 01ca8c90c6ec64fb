"""Settings that are JSON: the object itself, or the path of a file that holds it, in JSON or YAML."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

YAML = (".yaml", ".yml")
"""How the names of YAML files end."""


def reader(kind: Any) -> Callable[[Any], Any]:
    """What reads such a setting as a `kind`; what is wrong with it is a ValueError of one line."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def read(value: Any) -> Any:
        if value is None:
            return None
        try:
            return adapter.validate_python(_document(value) if isinstance(value, str) else value)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
            raise ValueError("; ".join(_told(problem) for problem in problems)) from None

    return read


def _document(value: str) -> Any:
    if not value.strip():
        return {}
    try:
        text = value if value.lstrip().startswith("{") else Path(value).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"is neither a JSON object nor a file: {error.strerror}") from None
    if value.endswith(YAML):
        return _yaml(text)
    try:
        return json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from None


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"is not valid YAML: {' '.join(str(error).split())}") from None


def _told(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    text = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text
