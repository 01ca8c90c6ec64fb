"""Writing the audit log: a line in the transaction of the change itself."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

from pydantic.fields import FieldInfo
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import KEY_PREFIX, Caller
from controlplane.errors import ApiError
from controlplane.resources.audit_logs.tables import AuditLogRow
from controlplane.rest.access import CALLER, CREATED
from controlplane.rest.schema import WRITE_ONLY_FIELDS, ApiModel

LARGEST_BODY = 8 * 1024
"""Characters of JSON up to which a request's body is kept whole."""
LONGEST_TEXT = 2000
REDACTED = "(not kept)"
API_KEY = re.compile(rf"{KEY_PREFIX}[A-Za-z0-9_-]{{20,}}")
REFUSALS_AN_HOUR = 100


class Budget:
    """How many refused attempts of each user the log takes in an hour, lest one fills the disk with them."""

    def __init__(self, per_hour: int = REFUSALS_AN_HOUR, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_hour = per_hour
        self._clock = clock
        self._taken: Counter[tuple[str, str]] = Counter()
        self._ends = 0.0

    def take(self, caller: Caller) -> bool:
        if self._clock() >= self._ends:
            self._taken.clear()
            self._ends = self._clock() + 3600
        who = (caller.account_id, caller.user_id)
        self._taken[who] += 1
        return self._taken[who] <= self._per_hour


def record(session: AsyncSession) -> None:
    """Note the caller's change; the transaction that makes it takes this with it, or neither happens."""
    caller: Caller = session.info[CALLER]
    if caller.call is not None:
        resource = session.info.get(CREATED) or caller.call.resource
        session.add(line(caller, resource, request=kept(caller.call.body, caller.call.message)))


def refused(caller: Caller, error: ApiError) -> AuditLogRow:
    """The line of an attempt that was refused. What was sent with it is not kept."""
    resource = caller.call.resource if caller.call else ""
    return line(caller, resource, status_code=error.code.name, status_message=masked(error.message))


def line(caller: Caller, resource: str, **values: Any) -> AuditLogRow:
    assert caller.call is not None
    return AuditLogRow(
        account_id=caller.account_id,
        user_id=caller.user_id,
        email=caller.email,
        key_id=caller.key_id,
        action=caller.call.action[:80],
        resource=masked(resource),
        query=masked(caller.call.query),
        client_address=caller.call.client_address[:64],
        **values,
    )


def kept(body: Any, message: type[ApiModel] | None = None) -> dict[str, Any]:
    """What the log keeps of a body that is read as `message`.

    Write-only values never, nor an API key wherever it stands, and of a large body the fields' names only.
    """
    if not isinstance(body, dict):
        return {}
    shown: dict[str, Any] = redact(body, message)
    if len(json.dumps(shown)) > LARGEST_BODY:
        return {name[:80]: "..." for name in list(shown)[:100]}
    return shown


def redact(value: Any, message: type[ApiModel] | None = None) -> Any:
    if isinstance(value, dict):
        fields = fields_by_spelling(message)
        return {masked(name): _redact_field(name, inner, fields.get(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [redact(inner, message) for inner in value]
    return API_KEY.sub(REDACTED, value) if isinstance(value, str) else value


def _redact_field(name: str, value: Any, field: FieldInfo | None) -> Any:
    if field is None:
        # Nobody knows what this is: a name that is write-only anywhere is so here too.
        return REDACTED if name in WRITE_ONLY_FIELDS else redact(value)
    extra = field.json_schema_extra
    if isinstance(extra, dict) and extra.get("writeOnly"):
        return REDACTED
    return redact(value, message_in(field.annotation))


def fields_by_spelling(message: type[ApiModel] | None) -> dict[str, FieldInfo]:
    """The fields of a message by both of their names."""
    found = message.model_fields.items() if message else ()
    return {spelling: field for name, field in found for spelling in (name, field.alias or name)}


def message_in(annotation: Any) -> type[ApiModel] | None:
    """The message that a type holds: `User`, `Placement | None`, `list[Rule]`, `dict[str, Schedule]`."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := message_in(inner))), None)


def masked(text: str) -> str:
    return API_KEY.sub(REDACTED, text)[:LONGEST_TEXT]
