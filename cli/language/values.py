"""Values from the command line as numbers, paths and choices.

Typer builds a pydantic validator for each parameter that is given. Importing pydantic takes longer than most
commands do altogether, so the kinds of values that we use are read here. Any other kind is left to Typer.
"""

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

from cli.language.options import chosen, number


class Plain:
    """Stands in for Typer's own coercion of one parameter."""

    def __init__(self, convert: Callable[[Any], Any]) -> None:
        self._convert = convert

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        try:
            return [self._convert(item) for item in value] if several else self._convert(value)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param=param) from None


class QuickParams:
    """A Typer command whose parameters read their values here."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            _read_quickly(param)
        return params


def _read_quickly(param: Any) -> None:
    convert = _converter(param.type_descriptor)
    if convert is not None:
        plain = Plain(convert)
        param.get_runtime_param = lambda: plain


def _converter(descriptor: Any) -> Callable[[Any], Any] | None:
    kind, info = descriptor.annotation, descriptor.parameter_info
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
    if info.min is not None or info.max is not None:
        return lambda value: _ranged(number(value) if kind is float else _integer(value), info.min, info.max)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda value: _member(str(getattr(value, "value", value)), kind)
    if kind is Path and info.file_okay and info.dir_okay and not (info.exists or info.resolve_path):
        return Path
    known: dict[Any, Callable[[Any], Any]] = {str: str, int: _integer, float: number, bool: bool}
    return known.get(kind)


def _member(value: str, kind: type[Enum]) -> Enum:
    return kind(chosen(value, [str(member.value) for member in kind]))


def _integer(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f'"{value}" is not a whole number') from None


def _ranged(value: float, least: float | None, most: float | None) -> float:
    if least is not None and value < least:
        raise ValueError(f"{value:g} is less than {least:g}")
    if most is not None and value > most:
        raise ValueError(f"{value:g} is more than {most:g}")
    return value
