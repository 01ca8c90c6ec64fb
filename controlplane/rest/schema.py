"""What every wire schema shares: camelCase out, both spellings in, and fields with a direction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from controlplane.errors import ApiError, Code, field_violations, invalid
from controlplane.rest.durations import format_duration, parse_duration


def _format_time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Int64 = Annotated[int, PlainSerializer(str, return_type=str, when_used="json")]
"""A 64-bit integer: a string on the wire, a number or a string when sent."""

Timestamp = Annotated[datetime, PlainSerializer(_format_time, return_type=str, when_used="json")]

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]


def output_only(default: Any = None, **extra: Any) -> Any:
    """A field that the server sets. Clients may send it back; it is ignored, as protobuf APIs do."""
    return Field(default=default, json_schema_extra={"readOnly": True}, **extra)


def _is_output_only(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("readOnly"))


class ApiModel(BaseModel):
    """A message of the API.

    Input takes camelCase and snake_case; an unknown field is refused. Output is camelCase, with unset
    messages (None) left out and unset scalars present.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", protected_namespaces=()
    )

    unsupported: ClassVar[dict[str, str]] = {}
    """Field → why it cannot be honoured. Setting it to anything but its default is refused."""

    def given(self) -> dict[str, Any]:
        """The fields that the client sent and may set, by their snake_case names."""
        self.refuse_unsupported()
        return {name: getattr(self, name) for name in self.model_fields_set & self.settable_fields()}

    @classmethod
    def settable_fields(cls) -> set[str]:
        """The fields that are not output-only."""
        return {name for name, field in cls.model_fields.items() if not _is_output_only(field)}

    def refuse_unsupported(self) -> None:
        fields = type(self).model_fields
        refused = [
            (to_camel(name), f"{to_camel(name)} is not supported: {self.unsupported[name]}")
            for name in sorted(self.model_fields_set & self.unsupported.keys())
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        ]
        if refused:
            raise ApiError(Code.INVALID_ARGUMENT, refused[0][1], [field_violations(refused)])

    @classmethod
    def field_of_path(cls, path: str) -> str:
        """The field that a mask path names, by its snake_case name; 400 when there is none."""
        head = path.split(".", 1)[0].strip()
        for name in cls.model_fields:
            if head in (name, to_camel(name)):
                return name
        raise invalid(f"the mask names no field of this resource: {path!r}", "updateMask")


class Status(ApiModel):
    """The detail of a resource's state: a google.rpc code by name, and the root cause in words."""

    code: str = "OK"
    message: str = ""

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls(code=row.status_code, message=row.status_message)


class Empty(ApiModel):
    """`{}`"""
