from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select

from controlplane.resources.api_keys.schemas import LIMITS, ApiKey
from controlplane.resources.api_keys.tables import ApiKeyRow
from controlplane.resources.users.tables import UserRow
from controlplane.rest.filters.fields import constant, integer, text, text_map, time
from controlplane.rest.listing import Listing

EMAIL = select(UserRow.email).where(UserRow.uid == ApiKeyRow.user_uid).scalar_subquery()

LISTING = Listing(
    key="apiKeys",
    message=ApiKey,
    unique=ApiKeyRow.key_id,
    fields={
        "key_id": replace(text(ApiKeyRow.key_id), unique=True),
        "display_name": text(ApiKeyRow.display_name),
        "create_time": time(ApiKeyRow.create_time),
        "secure": constant(True),
        "email": text(EMAIL, nullable=False),
        "prefix": text(ApiKeyRow.prefix),
        "expire_time": time(ApiKeyRow.expire_time),
        "annotations": text_map(ApiKeyRow.annotations),
        "last_used": time(ApiKeyRow.last_used),
        **{name: integer(getattr(ApiKeyRow, name)) for name in LIMITS},
    },
    refused={"key": "the platform does not keep it"},
    order="key_id",
    search=("key_id", "display_name", "prefix"),
)
