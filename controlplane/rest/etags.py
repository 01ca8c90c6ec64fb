"""Versions of resources: an `ETag` on what is read, and `If-Match` where a lost update would hurt."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import ApiError, Code
from controlplane.rest.access import CALLER
from controlplane.rest.schema import ApiModel


def etag(message: ApiModel) -> str:
    """The version of what clients may set of a resource: states and counters move without changing it."""
    named: dict[str, Any] = message.model_dump(
        mode="json", include=message.settable_fields() | {"name", "create_time"}
    )
    named["hidden_version"] = getattr(message, "hidden_version", "")  # of what is write-only
    return f'"{hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:32]}"'


def refuse_other_version(session: AsyncSession, current: ApiModel) -> None:
    """412 when the caller sent `If-Match` and the resource is no longer as the caller read it."""
    caller = session.info.get(CALLER)
    wanted = caller.call.if_match if caller is not None and caller.call is not None else ""
    if not wanted or wanted.strip() == "*":
        return
    # A proxy that compresses makes validators weak; the content is compared all the same.
    named = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
    if etag(current) not in named:
        text = "the resource was changed since it was read (If-Match names another version); read it again"
        raise ApiError(Code.ABORTED, text, http_status=412)
