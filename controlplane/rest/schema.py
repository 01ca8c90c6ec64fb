"""What every wire schema shares: camelCase out, both spellings in, and fields with a direction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

from controlplane.errors import ApiError, Code, field_violations, invalid
from controlplane.rest.durations import PATTERN as DURATION
from controlplane.rest.durations import format_duration, parse_duration

DECIMAL = re.compile(r"-?[0-9]+")


def _format_time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _in_64_bits(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise ValueError("must be a number of at most 64 bits")
    return value


Int64 = Annotated[
    int,
    AfterValidator(_in_64_bits),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}, mode="serialization"),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}]},
        mode="validation",
    ),
]
"""A 64-bit integer: a string on the wire, a number or a string when sent."""


def _read_time(value: Any) -> Any:
    if isinstance(value, int | float) or (isinstance(value, str) and DECIMAL.fullmatch(value)):
        raise ValueError('must be an RFC 3339 time such as "2030-01-31T12:00:00Z"')
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie in the years 1 to 9999") from None


Timestamp = Annotated[
    datetime,
    BeforeValidator(_read_time),
    AfterValidator(_in_utc),
    PlainSerializer(_format_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "google-duration", "pattern": f"^{DURATION.pattern}$"}),
]


class OneOf:
    """Of a text: an enum's name. The first one stands for unset, and may come as "" too.

    Used as `Annotated[str, OneOf("KIND_UNSPECIFIED", "HF_BASE_MODEL")]`.
    """

    def __init__(self, *names: str) -> None:
        self.names = names

    def check(self, value: str) -> str:
        if value and value not in self.names:
            raise ValueError(f"{value!r} is none of {', '.join(self.names)}")
        return value or self.names[0]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.names)}


def output_only(default: Any = None, **extra: Any) -> Any:
    """A field that the server sets. Clients may send it back; it is ignored, as protobuf APIs do."""
    return Field(default=default, json_schema_extra={"readOnly": True}, **extra)


WRITE_ONLY_FIELDS: set[str] = set()
"""The names, in both spellings, of all fields whose values are never shown again, in any answer or log."""


def write_only(**extra: Any) -> Any:
    """A field that is taken and never returned: a secret. It is a SecretStr, empty when unset."""
    return Field(default=SecretStr(""), exclude=True, json_schema_extra={"writeOnly": True}, **extra)


def not_returned() -> Any:
    """A field of older clients: taken, without effect, and never in an answer."""
    return Field(default=None, exclude=True, description="Accepted from older clients; has no effect.")


def _is_output_only(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("readOnly"))


def _refuse_guesses(sent: Any, read: Any) -> None:
    """pydantic takes 1 for true, true for 1 and "1_0" for 10; who sends these means something else."""
    if isinstance(sent, bool) != isinstance(read, bool):
        raise ValueError("must be true or false" if isinstance(read, bool) else "must not be true or false")
    if isinstance(sent, str) and isinstance(read, int) and not DECIMAL.fullmatch(sent):
        raise ValueError("must be an integer")
    if isinstance(sent, dict) and isinstance(read, dict):
        for key in sent.keys() & read.keys():
            _refuse_guesses(sent[key], read[key])
    elif isinstance(sent, list) and isinstance(read, list):
        for one, other in zip(sent, read, strict=False):
            _refuse_guesses(one, other)


class ApiModel(BaseModel):
    """A message of the API.

    Input takes camelCase and snake_case; an unknown field is refused, and null puts a field to its default.
    Output is camelCase, with unset messages (None) left out and unset scalars present.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    unsupported: ClassVar[dict[str, str]] = {}
    """Field → why it cannot be honoured. Setting it to anything but its default is refused."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        for name, field in cls.model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("writeOnly"):
                WRITE_ONLY_FIELDS.update((name, to_camel(name)))

    @field_validator("*", mode="wrap")
    @classmethod
    def read_as_protobuf(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if value is None:
            field = cls.model_fields[info.field_name or ""]
            if not field.is_required():
                return field.get_default(call_default_factory=True)
        found = read(value)
        if found is not value:  # This runs for each field of each message: nothing was guessed otherwise.
            _refuse_guesses(value, found)
        return found

    def given(self) -> dict[str, Any]:
        """The fields that the client sent and may set, by their snake_case names."""
        self.refuse_unsupported()
        return {name: getattr(self, name) for name in self.model_fields_set & self.settable_fields()}

    @classmethod
    def settable_fields(cls) -> set[str]:
        """The fields that are not output-only."""
        return {name for name, field in cls.model_fields.items() if not _is_output_only(field)}

    def refuse_unsupported(self) -> None:
        refuse_by_name(list(self._unsupported_fields()))

    def _unsupported_fields(self, place: str = "") -> Iterator[tuple[str, str]]:
        """(path, why) of what is set and cannot be honoured, in nested messages too."""
        for name in sorted(self.model_fields_set):
            value, path = getattr(self, name), place + to_camel(name)
            if name in self.unsupported and value != self.default_of(name):
                yield path, self.unsupported[name]
            elif isinstance(value, ApiModel):
                yield from value._unsupported_fields(path + ".")

    @classmethod
    def default_of(cls, name: str) -> Any:
        return cls.model_fields[name].get_default(call_default_factory=True)

    @classmethod
    def field_of_path(cls, path: str, mask: str = "updateMask") -> tuple[str, str]:
        """(field, rest) of a mask path, the field by its snake_case name; 400 when there is none."""
        head, _, rest = path.strip().partition(".")
        for name in cls.model_fields:
            if head in (name, to_camel(name)):
                return name, rest
        raise invalid(f"{mask} names no field of this resource: {path!r}", mask)


def refuse_by_name(fields: list[tuple[str, str]]) -> None:
    """400 for (field, why) of what cannot be honoured, if there is any."""
    refused = [(name, f"{name} is not supported: {why}") for name, why in fields]
    if refused:
        raise ApiError(Code.INVALID_ARGUMENT, refused[0][1], [field_violations(refused)])


STATUS_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
)


class Status(ApiModel):
    """The detail of a resource's state: a google.rpc code by name, and the root cause in words."""

    code: Annotated[str, OneOf(*STATUS_CODES)] = STATUS_CODES[0]
    message: str = ""

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls(code=row.status_code, message=row.status_message)


class Empty(ApiModel):
    """`{}`"""
