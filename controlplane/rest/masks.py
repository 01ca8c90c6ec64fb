"""Field masks: which fields a PATCH changes, and which a read returns."""

from __future__ import annotations

from typing import Any

from pydantic.alias_generators import to_camel

from controlplane.rest.schema import ApiModel


def changes(body: ApiModel, update_mask: str | None) -> dict[str, Any]:
    """What a PATCH changes, by snake_case field.

    With `updateMask` exactly the named fields, those absent from the body going back to their defaults
    (`*` names every field sent); without it, the fields sent.
    """
    given = body.given()
    if not update_mask or update_mask.strip() == "*":
        return given
    named = {type(body).field_of_path(path) for path in update_mask.split(",") if path.strip()}
    fields = type(body).model_fields
    settable = named & body.settable_fields()
    return {name: given.get(name, fields[name].get_default(call_default_factory=True)) for name in settable}


def apply_read_mask(message: dict[str, Any], read_mask: str | None) -> dict[str, Any]:
    """Keep the top-level fields that the mask names, in either spelling; empty or `*` keeps all."""
    if not read_mask or read_mask.strip() == "*":
        return message
    wanted = {to_camel(path.split(".", 1)[0].strip()) for path in read_mask.split(",")}
    return {key: value for key, value in message.items() if key in wanted}
