from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints

from controlplane.resources.api_keys.tables import ApiKeyRow
from controlplane.resources.users.tables import UserRow
from controlplane.rest.schema import ApiModel, Timestamp, output_only

AnnotationKey = Annotated[str, StringConstraints(min_length=1, max_length=63)]
AnnotationValue = Annotated[str, StringConstraints(max_length=1000)]
KeyLimit = Annotated[int, Field(ge=1, le=1_000_000_000)]

LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
"""What one key may use of what its account may."""


class ApiKey(ApiModel):
    key_id: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = "default"
    key: str = output_only("", description="The key itself: in the answer to its creation, and never again.")
    create_time: Timestamp | None = output_only()
    secure: bool = output_only(True)
    email: str = output_only("")
    prefix: str = output_only("")
    expire_time: Timestamp | None = None
    annotations: Annotated[dict[AnnotationKey, AnnotationValue], Field(max_length=64)] = Field(
        default_factory=dict
    )
    last_used: Timestamp | None = output_only(description="Exact to the minute.")
    requests_per_minute: Annotated[
        KeyLimit | None, Field(description="Inference requests that it may make in a minute; any when unset.")
    ] = None
    tokens_per_minute: Annotated[
        KeyLimit | None, Field(description="Tokens of their prompts and answers together in a minute.")
    ] = None
    concurrent_requests: Annotated[
        KeyLimit | None, Field(description="Of them at one time, at each of the platform's gateways.")
    ] = None

    @classmethod
    def of(cls, row: ApiKeyRow, user: UserRow, key: str = "") -> Self:
        return cls(
            key_id=row.key_id,
            display_name=row.display_name,
            key=key,
            create_time=row.create_time,
            email=user.email,
            prefix=row.prefix,
            expire_time=row.expire_time,
            annotations=row.annotations,
            last_used=row.last_used,
            **{name: getattr(row, name) for name in LIMITS},
        )


class CreateApiKeyRequest(ApiModel):
    api_key: ApiKey = Field(default_factory=ApiKey)


class DeleteApiKeyRequest(ApiModel):
    key_id: str
