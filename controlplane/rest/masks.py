"""Field masks: which fields a PATCH changes, and which a read returns."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from pydantic.alias_generators import to_camel
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import invalid
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.listing import inner_message, is_scalar
from controlplane.rest.schema import ApiModel, refuse_by_name


def changes(
    session: AsyncSession, body: ApiModel, update_mask: str | None, current: ApiModel
) -> dict[str, Any]:
    """What a PATCH changes of the `current` message, by snake_case field.

    With `updateMask` exactly the named fields, those absent from the body going back to their defaults, and
    of a path into a field only that part (`*` names every field sent); without it, the fields sent. What is
    sent as it is already is no change; what would be one and cannot be honoured is refused by name.

    412 when the request's `If-Match` names another version than `current`.
    """
    refuse_other_version(session, current)
    settable = body.settable_fields()
    wanted: dict[str, Any] = {}
    paths = paths_of(type(body), update_mask, "updateMask")
    if not paths:
        wanted = {name: getattr(body, name) for name in body.model_fields_set & settable}
    for path in paths:
        name, rest = body.field_of_path(path)
        sent = getattr(body, name)
        if name in settable:
            wanted[name] = _with_part(wanted.get(name, getattr(current, name)), sent, rest) if rest else sent
    changed = {name: value for name, value in wanted.items() if value != getattr(current, name)}
    refuse_by_name([(to_camel(n), why) for n, why in sorted(body.unsupported.items()) if n in changed])
    return changed


def refuse_fixed(changed: dict[str, Any], free: Container[str], what: str) -> None:
    """400 for a change of a field that stays as it was created."""
    for name in sorted(changed):
        if name not in free:
            raise invalid(f"{to_camel(name)} of {what} cannot be changed", to_camel(name))


def paths_of(message: type[ApiModel], mask: str | None, parameter: str) -> list[str]:
    """The paths of a mask, each of which the message has; none of a mask that is blank or `*`."""
    paths = [path.strip() for path in (mask or "").split(",") if path.strip()]
    if paths == ["*"]:
        return []
    for path in paths:
        _check_path(message, path, parameter)
    return paths


def _check_path(message: type[ApiModel], path: str, parameter: str) -> None:
    name, rest = message.field_of_path(path, parameter)
    info = message.model_fields[name]
    if not rest:
        return
    inner = inner_message(info)
    if inner is not None:
        _check_path(inner, rest, parameter)
    elif is_scalar(info):
        raise invalid(f"{parameter} goes deeper than the field it names: {path!r}", parameter)


def _with_part(value: Any, sent: Any, path: str) -> Any:
    """`value` with the part at `path` as it was sent, or without it when it was not sent."""
    if value is None and sent is None:
        return None
    if isinstance(value, ApiModel) or isinstance(sent, ApiModel):
        target: ApiModel = value or type(sent)()
        name, rest = target.field_of_path(path)
        part = getattr(sent, name) if sent is not None else target.default_of(name)
        return target.model_copy(
            update={name: _with_part(getattr(target, name), part, rest) if rest else part}
        )
    if isinstance(value, dict) or isinstance(sent, dict):
        key = path.strip().strip("`")
        kept = {name: item for name, item in (value or {}).items() if name != key}
        return {**kept, **({key: sent[key]} if key in (sent or {}) else {})}
    raise invalid(f"updateMask goes deeper than the field it names: {path!r}", "updateMask")


def apply_read_mask(message: ApiModel, shown: dict[str, Any], read_mask: str | None) -> dict[str, Any]:
    """Keep what the mask names of a message, in either spelling; blank or `*` keeps all."""
    paths = paths_of(type(message), read_mask, "readMask")
    if not paths:
        return shown
    kept: dict[str, Any] = {}
    for path in paths:
        name, rest = message.field_of_path(path, "readMask")
        key, inner = to_camel(name), getattr(message, name)
        if key not in shown:
            continue
        if rest and isinstance(inner, ApiModel):
            already = kept.get(key, {})
            kept[key] = {**already, **apply_read_mask(inner, shown[key], rest)}
        else:
            kept[key] = shown[key]
    return kept
